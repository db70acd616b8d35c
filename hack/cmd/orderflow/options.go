package main

import (
	"os"
	"strings"

	"github.com/spf13/pflag"

	"orderflow.internal/hack/stack"
)

// stackName is the folder below .run of the stack that hack/up runs.
const stackName = "up"

// brokerFlags add the choice of a broker to a command.
func brokerFlags(flags *pflag.FlagSet, o *stack.Options) {
	flags.StringVar(&o.RabbitMQImage, "rabbitmq-image", "",
		"run RabbitMQ from this `image` with Docker, such as rabbitmq:4.3.4-management, instead of the distribution's")
	flags.StringVar(&o.AMQPURL, "amqp-url", "",
		"use the broker at this `url` (amqp://user:password@host:port, an administrator); its topology is written,\n"+
			"users with the services' names included")
	flags.StringVar(&o.ManagementURL, "management-url", "",
		"management API of that broker (http://user:password@host:port)")
}

// passedOn are the variables of this program's environment that the services get, too.
func passedOn(environ []string) map[string]string {
	env := make(map[string]string)
	for _, variable := range environ {
		key, value, _ := strings.Cut(variable, "=")
		for _, prefix := range []string{
			"OTEL_", "LOG_LEVEL", "ORDER_", "BUS_", "DATABASE_MAX_CONNS", "SHUTDOWN_TIMEOUT", "DRAIN_DELAY",
			"GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG",
		} {
			if strings.HasPrefix(key, prefix) {
				env[key] = value
			}
		}
	}
	return env
}

func newOptions() (stack.Options, error) {
	root, err := stack.FindRoot()
	return stack.Options{Root: root, Name: stackName, Env: passedOn(os.Environ())}, err
}

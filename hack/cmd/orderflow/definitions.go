package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/stack"
	"orderflow.internal/hack/topology"
)

type definitions struct {
	program
	values, set    []string
	vhost, secrets string
	prefix         string
}

func (p program) definitions() *cobra.Command {
	f := definitions{program: p}
	cmd := &cobra.Command{
		Use:   "definitions",
		Short: "Print the broker's topology, to import it where no operator declares it",
		Long: `Renders charts/orderflow with the values given and prints its virtual host, exchanges, queues, bindings,
policies, users and permissions in the form that RabbitMQ imports (POST /api/definitions, or "rabbitmqctl
import_definitions"). Each user gets a new password, which is in the Secrets that --secrets writes:
<prefix><service>-broker, for <service>.broker.secret. An import changes nothing that is there already but policies,
permissions and passwords.

A broker before RabbitMQ 4.3 refuses policies with keys that it does not know: add
--set global.rabbitmq.consumerDisconnectedMilliseconds=0.`,
		Example: `  hack/definitions --vhost orderflow --secrets secrets.yaml >definitions.json
  curl --user admin --header content-type:application/json --data @definitions.json \
    https://broker.example.com:15671/api/definitions
  kubectl apply --namespace orderflow --filename secrets.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.vhost, "vhost", "", "virtual `host` (default the values' own)")
	flags.StringArrayVarP(&f.values, "values", "f", nil, "values `file` for the chart")
	flags.StringArrayVar(&f.set, "set", nil, "value for the chart (`key=value`)")
	flags.StringVar(&f.secrets, "secrets", "", "`file` to write the users' Secrets to; it must not exist")
	flags.StringVar(&f.prefix, "prefix", "", "`text` before the users' names, for a broker that others use too")
	_ = cmd.MarkFlagRequired("secrets") // without them nobody knows the passwords
	return cmd
}

func (f *definitions) run(ctx context.Context) error {
	defs, err := f.topology(ctx)
	if err != nil {
		return err
	}
	passwords := map[string]string{}
	text, err := stack.WithPasswords(*defs, func(user string) string {
		passwords[user] = rand.Text()
		return passwords[user]
	}, "")
	if err != nil {
		return err
	}
	var secrets strings.Builder
	for _, u := range defs.Users {
		fmt.Fprintf(&secrets, `---
apiVersion: v1
kind: Secret
metadata:
  name: %s-broker
stringData:
  username: %s
  password: %s
`, u.Name, u.Name, passwords[u.Name])
	}
	file, err := os.OpenFile(f.secrets, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(secrets.String()); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	_, err = fmt.Println(string(text))
	return err
}

// topology is what the charts declare with the values, the users' names with the prefix.
func (f *definitions) topology(ctx context.Context) (*topology.Definitions, error) {
	var args []string
	for _, file := range f.values {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		args = append(args, "--values", path)
	}
	for _, value := range f.set {
		args = append(args, "--set", value)
	}
	if f.vhost != "" {
		args = append(args, "--set-string", "global.rabbitmq.vhost="+f.vhost)
	}
	// What the values leave to somebody else is what is wanted here.
	args = append(args, "--set", "messaging.enabled=true,global.rabbitmq.topology.enabled=true")
	manifests, err := charts.Template(ctx, f.root, "orderflow", args...)
	if err != nil {
		return nil, err
	}
	defs, err := topology.Convert(manifests)
	if err != nil {
		return nil, err
	}
	for i := range defs.Users {
		defs.Users[i].Name = f.prefix + defs.Users[i].Name
	}
	for i := range defs.Permissions {
		defs.Permissions[i].User = f.prefix + defs.Permissions[i].User
	}
	for i := range defs.TopicPermissions {
		defs.TopicPermissions[i].User = f.prefix + defs.TopicPermissions[i].User
	}
	return defs, nil
}

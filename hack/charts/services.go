package charts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Service is what charts/orderflow says of a service. Whatever else needs these facts reads them from there, like the
// local stack and the Tiltfile, or is compared with it by TestServicesAreTheSameEverywhere.
type Service struct {
	Name     string
	Port     int // of its API; that of probes and metrics is 1000 higher
	Admin    int
	Database bool
	Queues   map[string][]string // routing keys of each queue that it consumes
	Calls    map[string]int      // ports of the services that it calls, by name
}

// Services are the services of charts/orderflow, in the order of its Chart.yaml.
func Services(root string) ([]Service, error) {
	var chart struct {
		Dependencies []struct{ Name, Alias string }
	}
	var values map[string]yaml.Node
	err := errors.Join(read(filepath.Join(folder(root, "orderflow"), "Chart.yaml"), &chart),
		read(filepath.Join(folder(root, "orderflow"), "values.yaml"), &values))
	if err != nil {
		return nil, err
	}
	var services []Service
	for _, d := range chart.Dependencies {
		if d.Name != "service" {
			continue
		}
		var v struct {
			Port     struct{ HTTP, Admin int }
			Database struct{ Secret string }
			Broker   struct {
				Queues map[string]struct {
					RoutingKeys []string `yaml:"routingKeys"`
				}
			}
			NetworkPolicy struct{ Calls map[string]int } `yaml:"networkPolicy"`
		}
		node := values[d.Alias]
		if err := node.Decode(&v); err != nil {
			return nil, fmt.Errorf("values of %s: %w", d.Alias, err)
		}
		s := Service{
			Name: d.Alias, Port: v.Port.HTTP, Admin: v.Port.Admin, Database: v.Database.Secret != "",
			Queues: map[string][]string{}, Calls: v.NetworkPolicy.Calls,
		}
		for queue, binding := range v.Broker.Queues {
			s.Queues[queue] = binding.RoutingKeys
		}
		services = append(services, s)
	}
	return services, nil
}

func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

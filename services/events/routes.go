package events

import (
	"encoding/json"

	"orderflow.internal/events/topology"
)

// Routes are the queues that get the events of each routing key, as the charts
// bind them. Those of StockReleasedKey are published for whoever binds a queue
// one day.
var Routes = routes(topology.Definitions)

func routes(definitions []byte) map[string][]string {
	var broker struct {
		Bindings []struct {
			Source      string `json:"source"`
			RoutingKey  string `json:"routing_key"`
			Destination string `json:"destination"`
		} `json:"bindings"`
	}
	if err := json.Unmarshal(definitions, &broker); err != nil {
		panic(err) // the file is compiled in
	}
	queues := map[string][]string{}
	for _, b := range broker.Bindings {
		if b.Source == Exchange {
			queues[b.RoutingKey] = append(queues[b.RoutingKey], b.Destination)
		}
	}
	return queues
}

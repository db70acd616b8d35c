// Package topology turns the broker's topology, which the charts alone define,
// into RabbitMQ definitions, so that a broker outside Kubernetes holds the same
// exchanges, queues, policies and permissions as one inside.
package topology

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"orderflow.internal/hack/charts"
)

// Path is where the definitions are kept, from the repository's root.
const Path = "services/events/topology/definitions.json"

// Generate renders the charts of the repository at root and returns the
// definitions as indented JSON. The values are the default ones but for what
// the oldest broker outside Kubernetes, RabbitMQ 3.10, would refuse.
func Generate(root string) ([]byte, error) {
	manifests, err := charts.Template(context.Background(), root, "orderflow",
		"--set", "global.rabbitmq.consumerDisconnectedMilliseconds=0")
	if err != nil {
		return nil, err
	}
	defs, err := Convert(manifests)
	if err != nil {
		return nil, fmt.Errorf("convert charts/orderflow: %w", err)
	}
	return encode(defs)
}

func encode(defs *Definitions) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(defs)
	return out.Bytes(), err
}

// Write brings the file at Path up to date.
func Write(root string) error {
	text, err := Generate(root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, Path), text, 0o644)
}

// Package topology turns the broker's topology, which the charts alone define,
// into RabbitMQ definitions, so that a broker outside Kubernetes holds the same
// exchanges, queues, policies and permissions as one inside.
package topology

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"orderflow.internal/hack/charts"
)

// Path is where the definitions are kept, from the repository's root.
const Path = "services/events/topology/definitions.json"

// ErrStale says that the charts and the file at Path differ.
var ErrStale = errors.New(Path + " is not what the charts render to; run hack/generate")

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

// Check returns ErrStale when the file at Path is not what Generate returns.
func Check(root string) error {
	want, err := Generate(root)
	if err != nil {
		return err
	}
	have, err := os.ReadFile(filepath.Join(root, Path))
	if err != nil {
		return fmt.Errorf("read the committed topology: %w", err)
	}
	if !bytes.Equal(have, want) {
		return ErrStale
	}
	return nil
}

// Write brings the file at Path up to date.
func Write(root string) error {
	text, err := Generate(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, Path), text, 0o644); err != nil {
		return fmt.Errorf("write the topology: %w", err)
	}
	return nil
}

func encode(defs *Definitions) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(defs); err != nil {
		return nil, fmt.Errorf("encode definitions: %w", err)
	}
	return out.Bytes(), nil
}

// Package topology holds what the broker must hold for the services to work.
package topology

import _ "embed"

// Definitions are RabbitMQ definitions with all exchanges, queues, bindings,
// policies, users and their permissions; users carry no password. They are
// generated from the charts, which alone define the topology.
//
//go:embed definitions.json
var Definitions []byte

package bus

import "time"

// Hurry shortens the times for which a pause keeps messages, and after which an
// open breaker probes.
func (c *Consumer) Hurry(keep, probe time.Duration) {
	for _, w := range c.workers {
		w.pause.keepFirst, w.pause.probeFirst = keep, probe
	}
}

// MessageOf is a delivery as SubscribeRaw hands it over.
var MessageOf = toMessage

package systemtest

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/events"
	"orderflow.internal/hack/stack"
)

// ownKeys are the routing keys that each service publishes.
var ownKeys = map[string][]string{
	"orders":    {events.OrderCreatedKey, events.OrderConfirmedKey, events.OrderCancelledKey},
	"products":  {events.StockReservedKey, events.StockNotAvailableKey, events.StockReleasedKey},
	"customers": nil,
}

// Each service's user may do at the broker what the service needs, and is refused everything else.
func TestBrokerPermissions(t *testing.T) {
	s := system(t)
	// No service runs: what is published here stays in the queues until it is purged.
	t.Cleanup(func() { purge(t, s) })
	for _, user := range withDatabase {
		t.Run(user, func(t *testing.T) {
			t.Run("refused", func(t *testing.T) { refusals(t, s, user) })
			t.Run("allowed", func(t *testing.T) { allowances(t, s, user) })
		})
	}
}

func refusals(t *testing.T, s *stack.Stack, user string) {
	attempts := map[string]func(ch *amqp.Channel) error{
		"declare an exchange": func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("mine", "topic", true, false, false, false, nil)
		},
		"declare a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
		"declare a queue of the broker's naming": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("", false, true, true, false, nil)
			return err
		},
		"delete the events' exchange": func(ch *amqp.Channel) error {
			return ch.ExchangeDelete(events.Exchange, false, false)
		},
		"publish to a queue past the exchange": func(ch *amqp.Channel) error {
			return publishKey(ch, "", events.QueueOrdersStockReserved)
		},
		"publish to the broker's own exchange": func(ch *amqp.Channel) error {
			return publishKey(ch, "amq.topic", "order.created")
		},
		"publish a routing key of nobody's": func(ch *amqp.Channel) error {
			return publishKey(ch, events.Exchange, "audit.order.created")
		},
		"publish a routing key of two words": func(ch *amqp.Channel) error {
			return publishKey(ch, events.Exchange, "order.created.stock")
		},
	}
	for owner, keys := range ownKeys {
		for _, key := range keys {
			if owner == user {
				continue
			}
			attempts["publish "+key] = func(ch *amqp.Channel) error { return publishKey(ch, events.Exchange, key) }
			for _, queue := range events.Routes[key] {
				attempts["redeliver to "+queue] = func(ch *amqp.Channel) error {
					return publishKey(ch, events.RedeliveryExchange, queue)
				}
			}
		}
	}
	for _, key := range []string{"order.created", "stock.reserved", "audit", queues[0] + events.DeadLetterSuffix} {
		attempts["redeliver by "+key] = func(ch *amqp.Channel) error { return publishKey(ch, events.RedeliveryExchange, key) }
	}
	for _, queue := range queues {
		deadLetters := queue + events.DeadLetterSuffix
		attempts["get from "+deadLetters] = func(ch *amqp.Channel) error { return get(ch, deadLetters) }
		attempts["consume "+deadLetters] = func(ch *amqp.Channel) error { return consume(ch, deadLetters) }
		attempts["bind "+queue] = func(ch *amqp.Channel) error {
			return ch.QueueBind(queue, "#", events.Exchange, false, nil)
		}
		attempts["unbind "+queue] = func(ch *amqp.Channel) error { return ch.QueueUnbind(queue, "#", events.Exchange, nil) }
		attempts["delete "+queue] = func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(queue, false, false, false)
			return err
		}
		if owner(queue) == user {
			continue
		}
		attempts["get from "+queue] = func(ch *amqp.Channel) error { return get(ch, queue) }
		attempts["consume "+queue] = func(ch *amqp.Channel) error { return consume(ch, queue) }
		attempts["purge "+queue] = func(ch *amqp.Channel) error {
			_, err := ch.QueuePurge(queue, false)
			return err
		}
	}
	conn := connect(t, s.Broker.ServiceURL(user))
	for what, attempt := range attempts {
		t.Run(what, func(t *testing.T) {
			err := attempt(channel(t, conn)) // which a refusal closes
			var refusal *amqp.Error
			if !errors.As(err, &refusal) || refusal.Code != amqp.AccessRefused ||
				!strings.HasPrefix(refusal.Reason, "ACCESS_REFUSED") {
				t.Errorf("%s: %v, want 403 ACCESS_REFUSED", what, err)
			}
		})
	}
	t.Run("management API", func(t *testing.T) {
		withPassword, err := url.Parse(s.Broker.ServiceURL(user))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Broker.PublicURL()+"/api/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := withPassword.User.Password()
		req.SetBasicAuth(user, password)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s, want 401", res.Status)
		}
	})
}

func allowances(t *testing.T, s *stack.Stack, user string) {
	conn := connect(t, s.Broker.ServiceURL(user))
	for _, key := range ownKeys[user] {
		t.Run("publish "+key, func(t *testing.T) {
			if err := publishKey(channel(t, conn), events.Exchange, key); err != nil {
				t.Error(err)
			}
		})
		for _, queue := range events.Routes[key] {
			t.Run("redeliver to "+queue, func(t *testing.T) {
				if err := publishKey(channel(t, conn), events.RedeliveryExchange, queue); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for _, queue := range queues {
		if owner(queue) != user {
			continue
		}
		t.Run("consume "+queue, func(t *testing.T) {
			if err := consume(channel(t, conn), queue); err != nil {
				t.Error(err)
			}
		})
		t.Run("dead-letter from "+queue, func(t *testing.T) {
			if err := publishKey(channel(t, conn), events.DeadLetterExchange, queue); err != nil {
				t.Error(err)
			}
		})
	}
}

func channel(t testing.TB, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ch.Close() }) // closed already when it was refused something
	return ch
}

// publishKey returns the broker's refusal of a message, if it refuses. That no queue takes the message is none.
func publishKey(ch *amqp.Channel, exchange, key string) error {
	if err := ch.Confirm(false); err != nil {
		return err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 1))
	if err := ch.Publish(exchange, key, false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("{}")}); err != nil {
		return err
	}
	select {
	case c, open := <-confirms:
		if !open {
			return <-closed
		}
		if !c.Ack {
			return errors.New("the broker did not take it")
		}
		return nil
	case err := <-closed:
		return err
	case <-time.After(10 * time.Second):
		return errors.New("neither confirmed nor refused within 10 s")
	}
}

func get(ch *amqp.Channel, queue string) error {
	_, _, err := ch.Get(queue, false)
	return err
}

func consume(ch *amqp.Channel, queue string) error {
	_, err := ch.Consume(queue, "", false, false, false, false, nil)
	return err
}

// purge empties all queues, those of dead letters too.
func purge(t testing.TB, s *stack.Stack) {
	t.Helper()
	ch := dial(t, s.Broker.AdminURL())
	for _, queue := range slices.Concat(queues, deadLetterQueues()) {
		if _, err := ch.QueuePurge(queue, false); err != nil {
			t.Errorf("purge %s: %v", queue, err)
		}
	}
}

func deadLetterQueues() []string {
	var names []string
	for _, queue := range queues {
		names = append(names, queue+events.DeadLetterSuffix)
	}
	return names
}

package clustertest

import (
	"errors"
	"net"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A pod with the credentials of orders is refused whatever orders does not do.
func TestOrdersIsRefusedTheRest(t *testing.T) {
	ctx := testContext(t, 3*time.Minute)
	probe := ours.probe(ctx, t, namespace, "probe-user", nil)
	secret := release + "-orders-user-credentials"
	conn, err := amqp.DialConfig("amqp://"+release+"-rabbitmq", amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{
			Username: ours.secret(ctx, t, secret, "username"), Password: ours.secret(ctx, t, secret, "password"),
		}},
		Dial: func(_, address string) (net.Conn, error) { return probe.dial(ctx, address) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	publish := func(exchange, key string) func(ch *amqp.Channel) error {
		return func(ch *amqp.Channel) error {
			if err := ch.Confirm(false); err != nil {
				return err
			}
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false, amqp.Publishing{})
			if err != nil {
				return err
			}
			closed := ch.NotifyClose(make(chan *amqp.Error, 1))
			select {
			case err := <-closed:
				return err
			case <-confirm.Done():
				if !confirm.Acked() {
					return <-closed
				}
				return nil
			}
		}
	}
	for name, attempt := range map[string]func(ch *amqp.Channel) error{
		"declare a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
		"declare an exchange": func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare("mine", "topic", true, false, false, false, nil)
		},
		"bind its queue": func(ch *amqp.Channel) error {
			return ch.QueueBind("orders.stock.reserved", "#", "orders.exchange", false, nil)
		},
		"delete its queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete("orders.stock.reserved", false, false, false)
			return err
		},
		"purge another's queue": func(ch *amqp.Channel) error {
			_, err := ch.QueuePurge("products.order.created", false)
			return err
		},
		"consume another's queue": func(ch *amqp.Channel) error {
			_, err := ch.ConsumeWithContext(ctx, "products.order.created", "", false, false, false, false, nil)
			return err
		},
		"publish stock.reserved":         publish("orders.exchange", "stock.reserved"),
		"publish to a queue by its name": publish("", "products.order.created"),
	} {
		t.Run(name, func(t *testing.T) {
			ch, err := conn.Channel()
			if err != nil {
				t.Fatal(err)
			}
			var refused *amqp.Error
			if err := attempt(ch); !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
				t.Errorf("not refused: %v", err)
			}
		})
	}
}

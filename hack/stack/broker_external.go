package stack

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// externalBroker is a broker of the user's choice: it gets the topology and is otherwise left alone.
type externalBroker struct{}

func (externalBroker) prepare(ctx context.Context, b *Broker, definitions []byte) error {
	if err := b.API(ctx, http.MethodPost, "/api/definitions", definitions, nil); err != nil {
		return fmt.Errorf("declare the topology at %s: %w", redact(b.opts.ManagementURL), err)
	}
	var me struct{ Name string }
	if err := b.API(ctx, http.MethodGet, "/api/whoami", nil, &me); err != nil {
		return err
	}
	// Whoever makes a vhost has no rights in it yet.
	path := "/api/permissions/" + url.PathEscape(b.Vhost()) + "/" + url.PathEscape(me.Name)
	return b.API(ctx, http.MethodPut, path, []byte(`{"configure":".*","write":".*","read":".*"}`), nil)
}

func (externalBroker) start(context.Context, *Broker) error { return nil }
func (externalBroker) stop(context.Context, *Broker) error  { return nil }
func (externalBroker) kill(context.Context, *Broker) error  { return ErrNotOurs }
func (externalBroker) purge(context.Context, *Broker) error { return nil }

func (externalBroker) ctl(context.Context, *Broker, ...string) (string, error) { return "", ErrNotOurs }
func (externalBroker) pid(context.Context, *Broker) (int, error)               { return 0, ErrNotOurs }

func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the broker"
	}
	return u.Redacted()
}

package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// API calls the broker's management API as administrator. body is JSON or nil; the answer is decoded into out unless
// that is nil. A status of 300 or more is an error.
func (b *Broker) API(ctx context.Context, method, path string, body []byte, out any) (err error) {
	base, err := url.Parse(b.ManagementURL())
	if err != nil {
		return err
	}
	password, _ := base.User.Password()
	user := base.User.Username()
	base.User = nil
	// path holds escaped parts (a vhost "/" is %2F), so it is added to the text and not to the parsed URL.
	req, err := http.NewRequestWithContext(ctx, method, base.String()+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(user, password)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // a reason to show, if one came
		return fmt.Errorf("%s %s: %s %s", method, path, res.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(out)
}

// CloseConnections ends every client connection of a user at the broker, as an operator would, and returns how many.
// The API learns of a new connection only after some seconds.
func (b *Broker) CloseConnections(ctx context.Context, user string) (int, error) {
	var connections []struct{ Name, User string }
	if err := b.API(ctx, http.MethodGet, "/api/connections", nil, &connections); err != nil {
		return 0, err
	}
	closed := 0
	for _, c := range connections {
		if c.User != user {
			continue
		}
		if err := b.API(ctx, http.MethodDelete, "/api/connections/"+url.PathEscape(c.Name), nil, nil); err != nil {
			return closed, err
		}
		closed++
	}
	return closed, nil
}

// Queue is what the management API reports about a queue; its counts lag by up to 5 s.
type Queue struct {
	Name      string `json:"name"`
	Messages  int    `json:"messages"`
	Ready     int    `json:"messages_ready"`
	Unacked   int    `json:"messages_unacknowledged"`
	Consumers int    `json:"consumers"`
}

// Queues lists the queues of the stack's vhost.
func (b *Broker) Queues(ctx context.Context) ([]Queue, error) {
	var queues []Queue
	err := b.API(ctx, http.MethodGet, "/api/queues/"+url.PathEscape(b.Vhost()), nil, &queues)
	return queues, err
}

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

package stack

import (
	"context"
	"encoding/json"
	"fmt"

	"orderflow.internal/hack/internal/api"
)

// API calls the broker's management API as administrator. body is JSON or nil; the answer is decoded into out unless
// that is nil. A status other than 2xx is an error.
func (b *Broker) API(ctx context.Context, method, path string, body []byte, out any) error {
	var content any
	if body != nil {
		content = json.RawMessage(body)
	}
	if err := api.Call(ctx, method, b.ManagementURL()+path, nil, content, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

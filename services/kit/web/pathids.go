package web

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
)

// pathIDs are the ids in the request's path as log attributes: {orderId} is
// order_id. What is no UUID may be anything and is left out.
func pathIDs(r *http.Request) []slog.Attr {
	rctx := chi.RouteContext(r.Context())
	if rctx == nil {
		return nil
	}
	var ids []slog.Attr
	for i, name := range rctx.URLParams.Keys {
		if id, err := parseUUID(name, rctx.URLParams.Values[i]); err == nil {
			ids = append(ids, slog.String(snake(name), id.String()))
		}
	}
	return ids
}

func snake(camel string) string {
	var b strings.Builder
	for _, c := range camel {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

package webtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// eventSchema is the schema of the operation's text/event-stream answer, which
// is that of each event's data; nil when there is none.
func (v *Validator) eventSchema(req *http.Request) *openapi3.SchemaRef {
	route, _, err := v.router.FindRoute(req)
	if err != nil {
		return nil
	}
	ok := route.Operation.Responses.Status(http.StatusOK)
	if ok == nil || ok.Value.Content["text/event-stream"] == nil {
		return nil
	}
	return ok.Value.Content["text/event-stream"].Schema
}

// stream checks the data of each event that goes by; our servers write it on
// one line.
type stream struct {
	io.ReadCloser
	t      testing.TB
	schema *openapi3.SchemaRef
	line   []byte
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.line = append(s.line, p[:n]...)
	for {
		line, rest, whole := bytes.Cut(s.line, []byte("\n"))
		if !whole {
			return n, err
		}
		s.line = rest
		data, isData := bytes.CutPrefix(line, []byte("data:"))
		if !isData || s.schema == nil {
			continue
		}
		if err := visit(s.schema, data); err != nil {
			s.t.Errorf("an event's data is not as documented: %v\n%s", err, excerpt(data))
		}
	}
}

func visit(schema *openapi3.SchemaRef, body []byte) error {
	if schema == nil {
		return errors.New("the document has no schema for it")
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return fmt.Errorf("read it as JSON: %w", err)
	}
	return schema.Value.VisitJSON(value, openapi3.VisitAsResponse(), openapi3.MultiErrors(),
		openapi3.EnableFormatValidation(), formats)
}

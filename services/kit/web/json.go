package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	// The standard library's next encoding/json: its errors name the place in
	// the document, also inside arrays and for types that decode themselves.
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// maxBody is the largest request body that is read, in bytes.
const maxBody = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled keeps the rare large body from living on in the pool.
const maxPooled = 64 << 10

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// Read decodes the request's JSON body into dst, a pointer to a struct with
// encoding/json tags. It is strict: names are case-sensitive, and an unknown or
// repeated field, a wrong type, anything after the value or no body at all is a
// 400 that names the field; another content type is a 415, more than 64 KiB a
// 413. dst is in no defined state after an error.
func Read(w http.ResponseWriter, r *http.Request, dst any) error {
	if err := checkContent(r.Header); err != nil {
		return err
	}
	if r.ContentLength > maxBody {
		return &http.MaxBytesError{Limit: maxBody}
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return err
		}
		return malformed("", "The body ended early.").Because(err)
	}
	return decode(buf.Bytes(), dst)
}

// checkContent wants application/json, in UTF-8 and not compressed.
func checkContent(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return unsupportedMediaType("The body must not have a Content-Encoding.")
	}
	contentType := h.Get("Content-Type")
	if contentType == "application/json" {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	if err != nil || mediaType != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return unsupportedMediaType("The body must be application/json.")
	}
	return nil
}

var strict = jsonv2.JoinOptions(jsonv2.RejectUnknownMembers(true),
	jsonv2.WithUnmarshalers(jsonv2.UnmarshalFromFunc(readUUID)))

// readUUID reads the usual form of a UUID alone: the type itself takes braces,
// urn:uuid: and no hyphens as well.
func readUUID(dec *jsontext.Decoder, id *uuid.UUID) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	text := token.String()
	if token.Kind() != '"' || len(text) != uuidLength {
		return errors.New("not a UUID in its usual form")
	}
	return id.UnmarshalText([]byte(text))
}

func decode(body []byte, dst any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return malformed("", "The body is empty.")
	}
	err := jsonv2.Unmarshal(body, dst, strict)
	if err == nil {
		return nil
	}
	var syntax *jsontext.SyntacticError
	var semantic *jsonv2.SemanticError
	switch {
	case errors.As(err, &syntax):
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return malformed(fieldPath(syntax.JSONPointer), "is given twice").Because(err)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return malformed("", "The JSON ends too early.").Because(err)
		}
		return malformed("", fmt.Sprintf("The JSON has a syntax error at byte %d.", syntax.ByteOffset)).Because(err)
	case errors.As(err, &semantic):
		field := fieldPath(semantic.JSONPointer)
		if errors.Is(err, jsonv2.ErrUnknownName) {
			return malformed(field, "is not a known field").Because(err)
		}
		if field == "" {
			return malformed("", "The body must be a JSON object.").Because(err)
		}
		return malformed(field, "must be "+expected(semantic)).Because(err)
	default:
		return malformed("", "The JSON cannot be read.").Because(err)
	}
}

// Write sends v as JSON. An error means that v cannot be encoded and nothing
// was sent; a client that does not read is not an error.
func Write(w http.ResponseWriter, status int, v any) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	encoder := json.NewEncoder(buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // see above
	return nil
}

package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// contract ties each event's names, Go type and decoder together for the
// tests; decode hides the type.
var contract = []struct {
	name    string // in asyncapi.yaml
	typ     string
	key     string
	example any
	decode  func([]byte) (any, error)
}{
	{"OrderCreated", OrderCreatedType, OrderCreatedKey, OrderCreated{}, hide(DecodeOrderCreated)},
	{"OrderConfirmed", OrderConfirmedType, OrderConfirmedKey, OrderConfirmed{}, hide(DecodeOrderConfirmed)},
	{"OrderCancelled", OrderCancelledType, OrderCancelledKey, OrderCancelled{}, hide(DecodeOrderCancelled)},
	{"StockReserved", StockReservedType, StockReservedKey, StockReserved{}, hide(DecodeStockReserved)},
	{"StockNotAvailable", StockNotAvailableType, StockNotAvailableKey, StockNotAvailable{}, hide(DecodeStockNotAvailable)},
	{"StockReleased", StockReleasedType, StockReleasedKey, StockReleased{}, hide(DecodeStockReleased)},
}

func hide[T any](decode func([]byte) (T, error)) func([]byte) (any, error) {
	return func(body []byte) (any, error) { return decode(body) }
}

func golden(t testing.TB, key string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", "golden", key+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// A golden file is what was published once: it must read into the Go type and
// be written again with nothing lost, added or changed.
func TestGoldenRoundTrip(t *testing.T) {
	for _, e := range contract {
		t.Run(e.name, func(t *testing.T) {
			body := golden(t, e.key)
			event, err := e.decode(body)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := reflect.TypeOf(event), reflect.TypeOf(e.example); got != want {
				t.Fatalf("decoded to %v, want %v", got, want)
			}
			written, err := json.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := json.Compact(&want, body); err != nil {
				t.Fatal(err)
			}
			if string(written) != want.String() {
				t.Errorf("written again\n got %s\nwant %s", written, want.String())
			}
		})
	}
}

// optional are the fields that may be left out: they came after the first
// release of their event.
var optional = []string{"expiresAt", "items[].reason"}

// Without a required field, or with null or a wrong type in its place, the
// error names it.
func TestDecodersNameTheField(t *testing.T) {
	for _, e := range contract {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(golden(t, e.key), &fields); err != nil {
			t.Fatal(err)
		}
		for field := range fields {
			for what, value := range map[string]string{"missing": "", "null": "null", "of a wrong type": `{"a":true}`} {
				if value == `{"a":true}` || !slices.Contains(optional, field) {
					checkNamed(t, e.name, e.decode, with(fields, field, value), field, what)
				} else if _, err := e.decode(with(fields, field, value)); err != nil {
					t.Errorf("%s with %s %s: %v", e.name, field, what, err)
				}
			}
		}
		var items []map[string]json.RawMessage
		if fields["items"] == nil {
			continue
		}
		if err := json.Unmarshal(fields["items"], &items); err != nil {
			t.Fatal(err)
		}
		for field := range items[0] {
			for what, value := range map[string]string{"missing": "", "null": "null"} {
				if slices.Contains(optional, "items[]."+field) {
					continue
				}
				changed := append([]byte("["), with(items[0], field, value)...)
				checkNamed(t, e.name, e.decode, with(fields, "items", string(changed)+"]"), "items[0]."+field, what)
			}
		}
	}
}

func checkNamed(t *testing.T, event string, decode func([]byte) (any, error), body []byte, field, what string) {
	t.Helper()
	_, err := decode(body)
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Field != field {
		t.Errorf("%s with %s %s: error %v does not name the field", event, field, what, err)
	}
}

// with is the object with one field replaced, or left out when value is "".
func with(object map[string]json.RawMessage, field, value string) []byte {
	changed := map[string]json.RawMessage{}
	for k, v := range object {
		changed[k] = v
	}
	delete(changed, field)
	if value != "" {
		changed[field] = json.RawMessage(value)
	}
	body, err := json.Marshal(changed)
	if err != nil {
		panic(err)
	}
	return body
}

// The document says the same, as far as JSON Schema can.
func TestDecodersCheckRanges(t *testing.T) {
	unsayable := []string{"nil order", "product twice", "year 10000 in UTC", "not an object", "two documents"}
	doc := document(t)
	const product = "550e8400-e29b-41d4-a716-446655440001"
	tests := map[string]struct {
		key, old, new, field string
	}{
		"nil order": {OrderCreatedKey, "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60",
			"00000000-0000-0000-0000-000000000000", "orderId"},
		"uuid in braces": {OrderCreatedKey, "0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60",
			"{0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60}", "orderId"},
		"quantity 0":          {OrderCreatedKey, `"quantity": 2`, `"quantity": 0`, "items[0].quantity"},
		"quantity too large":  {OrderCreatedKey, `"quantity": 10000`, `"quantity": 10001`, "items[1].quantity"},
		"quantity fractional": {OrderCreatedKey, `"quantity": 2`, `"quantity": 2.5`, "items[0].quantity"},
		"product twice":       {OrderCreatedKey, "446655440002", "446655440001", "items[1].productId"},
		"version 0":           {OrderCreatedKey, `"version": 1`, `"version": 0`, "version"},
		"version too large":   {OrderCancelledKey, `"version": 3`, `"version": 2147483648`, "version"},
		"time without zone":   {OrderCreatedKey, "123456Z", "123456", "createdAt"},
		"year 10000 in UTC":   {OrderCreatedKey, "2026-11-05T09:30:00.123456Z", "9999-12-31T23:59:59-01:00", "createdAt"},
		"price below 0":       {StockReservedKey, "2499", "-1", "items[0].unitPriceCents"},
		"price too large":     {StockReservedKey, "2499", "100000001", "items[0].unitPriceCents"},
		"currency in words":   {StockReservedKey, "EUR", "Euro", "currency"},
		"currency not ASCII":  {OrderConfirmedKey, "EUR", "€", "currency"},
		"available below 0":   {StockNotAvailableKey, "998", "-1", "items[0].availableQuantity"},
		"total below 0":       {OrderConfirmedKey, "4998", "-4998", "totalCents"},
		"unknown reason":      {OrderCancelledKey, ReasonCustomerRequest, "Whim", "reason"},
		"reason too long":     {StockNotAvailableKey, ReasonCurrencyMismatch, strings.Repeat("x", 65), "items[1].reason"},
		"no items":            {StockReleasedKey, `{"productId": "` + product + `", "quantity": 2}`, "", "items"},
		"not an object":       {StockReleasedKey, "{", "[{", ""},
		"two documents":       {OrderCancelledKey, "}", "} {}", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, e := range contract {
				if e.key != test.key {
					continue
				}
				body := bytes.Replace(golden(t, e.key), []byte(test.old), []byte(test.new), 1)
				checkNamed(t, e.name, e.decode, body, test.field, "that is "+name)
				if slices.Contains(unsayable, name) {
					continue
				}
				if compile(t, payloadSchema(t, doc, e.name)).Validate(parse(t, body)) == nil {
					t.Errorf("the document allows %s", body)
				}
			}
		})
	}
	many := `{"orderId":"` + product + `","releasedAt":"2026-11-05T09:31:00Z","items":[` +
		strings.Repeat(`{},`, MaxItems) + `{}]}`
	checkNamed(t, "StockReleased", hide(DecodeStockReleased), []byte(many), "items", "too long")
}

func TestDecodersIgnoreUnknownFields(t *testing.T) {
	for _, e := range contract {
		body := bytes.Replace(golden(t, e.key), []byte("{"), []byte(`{"giftWrap": {"paper": ["red"]}, `), 1)
		body = bytes.Replace(body, []byte(`{"productId"`), []byte(`{"engraving": 7, "productId"`), 1)
		if _, err := e.decode(body); err != nil {
			t.Errorf("%s with unknown fields: %v", e.name, err)
		}
	}
}

// Two readers must not read two things: a name is there once, as it is written
// in the contract.
func TestDecodersRefuseAmbiguousNames(t *testing.T) {
	for name, test := range map[string]struct{ key, old, new, field string }{
		"twice":               {OrderCreatedKey, `"version": 1`, `"version": 1, "version": 1`, "version"},
		"twice, by an escape": {OrderCreatedKey, `"version": 1`, `"version": 1, "versi\u006fn": 2`, "version"},
		"twice in an item": {OrderCreatedKey, `"quantity": 2`, `"quantity": 2, "quantity": 2`,
			"items[0].quantity"},
		"items twice":                 {OrderCreatedKey, `"items"`, `"items": [], "items"`, "items"},
		"an unknown name twice":       {OrderCreatedKey, `"version"`, `"gift": 1, "gift": 2, "version"`, "gift"},
		"twice in an unknown field":   {OrderCreatedKey, `"version"`, `"gift": {"a": 1, "a": 2}, "version"`, "gift.a"},
		"another case besides":        {OrderCreatedKey, `"version"`, `"VERSION": 1, "version"`, "version"},
		"another case instead":        {OrderConfirmedKey, `"version"`, `"Version"`, "version"},
		"another case of an optional": {OrderCreatedKey, `"expiresAt"`, `"ExpiresAt"`, "expiresAt"},
		"another case in an item": {StockReservedKey, `"quantity": 2`, `"Quantity": 9, "quantity": 2`,
			"items[0].quantity"},
		"another case of a shortage":    {StockNotAvailableKey, `"reason"`, `"REASON"`, "items[1].reason"},
		"text that is not UTF-8":        {OrderCancelledKey, `"version"`, "\"note\": \"\xff\", \"version\"", ""},
		"a name that is not UTF-8":      {OrderCancelledKey, `"version"`, "\"\xff\": 1, \"version\"", ""},
		"half of a surrogate pair":      {OrderCancelledKey, `"version"`, `"note": "\ud800", "version"`, ""},
		"a variant of a released order": {StockReleasedKey, `"releasedAt"`, `"releasedat"`, "releasedAt"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range contract {
				if e.key == test.key {
					body := bytes.Replace(golden(t, e.key), []byte(test.old), []byte(test.new), 1)
					checkNamed(t, e.name, e.decode, body, test.field, name)
				}
			}
		})
	}
}

// fuzzDecoder: a decoder never panics, fails only with an *InvalidError, and
// what it accepts is written and read again as the same event.
func fuzzDecoder[T any](f *testing.F, key string, decode func([]byte) (T, error)) {
	f.Add(golden(f, key))
	f.Add([]byte(`{"items":[null]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		event, err := decode(body)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("error %T %v is no *InvalidError", err, err)
			}
			return
		}
		written, err := json.Marshal(event)
		if err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		again, err := decode(written)
		if err != nil {
			t.Fatalf("read again: %v", err)
		}
		if !reflect.DeepEqual(event, again) {
			t.Fatalf("read again as %+v, was %+v", again, event)
		}
	})
}

func FuzzDecodeOrderCreated(f *testing.F)   { fuzzDecoder(f, OrderCreatedKey, DecodeOrderCreated) }
func FuzzDecodeOrderConfirmed(f *testing.F) { fuzzDecoder(f, OrderConfirmedKey, DecodeOrderConfirmed) }
func FuzzDecodeOrderCancelled(f *testing.F) { fuzzDecoder(f, OrderCancelledKey, DecodeOrderCancelled) }
func FuzzDecodeStockReserved(f *testing.F)  { fuzzDecoder(f, StockReservedKey, DecodeStockReserved) }
func FuzzDecodeStockReleased(f *testing.F)  { fuzzDecoder(f, StockReleasedKey, DecodeStockReleased) }
func FuzzDecodeStockNotAvailable(f *testing.F) {
	fuzzDecoder(f, StockNotAvailableKey, DecodeStockNotAvailable)
}

package events

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	// The standard library's next encoding/json refuses what two readers could
	// read differently: names given twice and text that is not UTF-8. Its errors
	// name the place in the document.
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// InvalidError is a payload that breaks the contract. No retry helps.
type InvalidError struct {
	Event  string // CloudEvents type
	Field  string // e.g. items[0].quantity; "" when the body is no JSON object
	Detail string
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return e.Event + ": " + e.Detail
	}
	return e.Event + ": " + e.Field + ": " + e.Detail
}

// DecodeOrderCreated reads an OrderCreated payload. Like every decoder here it
// ignores unknown fields and returns an *InvalidError for a required field
// that is missing or out of range, and for a name that is given twice or
// differs from a field's only in upper and lower case. Times come back in UTC.
func DecodeOrderCreated(body []byte) (OrderCreated, error) {
	var w struct {
		rest
		OrderID    string     `json:"orderId"`
		CustomerID string     `json:"customerId"`
		Items      []wireItem `json:"items"`
		Version    int64      `json:"version"`
		CreatedAt  string     `json:"createdAt"`
		ExpiresAt  string     `json:"expiresAt"`
	}
	c := read(OrderCreatedType, body, &w)
	e := OrderCreated{
		OrderID:    c.id("orderId", w.OrderID),
		CustomerID: c.id("customerId", w.CustomerID),
		Items:      c.items(w.Items),
		Version:    c.version(w.Version),
		CreatedAt:  c.time("createdAt", w.CreatedAt),
	}
	if w.ExpiresAt != "" {
		e.ExpiresAt = c.time("expiresAt", w.ExpiresAt)
	}
	return result(c, e)
}

// DecodeStockReserved reads a StockReserved payload, see DecodeOrderCreated.
func DecodeStockReserved(body []byte) (StockReserved, error) {
	var w struct {
		rest
		OrderID    string           `json:"orderId"`
		Items      []wirePricedItem `json:"items"`
		Currency   string           `json:"currency"`
		ReservedAt string           `json:"reservedAt"`
	}
	c := read(StockReservedType, body, &w)
	e := StockReserved{
		OrderID:    c.id("orderId", w.OrderID),
		Items:      c.pricedItems(w.Items),
		Currency:   c.currency(w.Currency),
		ReservedAt: c.time("reservedAt", w.ReservedAt),
	}
	return result(c, e)
}

// DecodeStockNotAvailable reads a StockNotAvailable payload, see DecodeOrderCreated.
func DecodeStockNotAvailable(body []byte) (StockNotAvailable, error) {
	var w struct {
		rest
		OrderID string         `json:"orderId"`
		Items   []wireShortage `json:"items"`
	}
	c := read(StockNotAvailableType, body, &w)
	e := StockNotAvailable{
		OrderID: c.id("orderId", w.OrderID),
		Items:   c.shortages(w.Items),
	}
	return result(c, e)
}

// DecodeStockReleased reads a StockReleased payload, see DecodeOrderCreated.
func DecodeStockReleased(body []byte) (StockReleased, error) {
	var w struct {
		rest
		OrderID    string     `json:"orderId"`
		Items      []wireItem `json:"items"`
		ReleasedAt string     `json:"releasedAt"`
	}
	c := read(StockReleasedType, body, &w)
	e := StockReleased{
		OrderID:    c.id("orderId", w.OrderID),
		Items:      c.items(w.Items),
		ReleasedAt: c.time("releasedAt", w.ReleasedAt),
	}
	return result(c, e)
}

// DecodeOrderConfirmed reads an OrderConfirmed payload, see DecodeOrderCreated.
func DecodeOrderConfirmed(body []byte) (OrderConfirmed, error) {
	var w struct {
		rest
		OrderID     string `json:"orderId"`
		CustomerID  string `json:"customerId"`
		TotalCents  *int64 `json:"totalCents"`
		Currency    string `json:"currency"`
		Version     int64  `json:"version"`
		ConfirmedAt string `json:"confirmedAt"`
	}
	c := read(OrderConfirmedType, body, &w)
	e := OrderConfirmed{
		OrderID:     c.id("orderId", w.OrderID),
		CustomerID:  c.id("customerId", w.CustomerID),
		TotalCents:  c.orZero("totalCents", w.TotalCents, maxTotalCents),
		Currency:    c.currency(w.Currency),
		Version:     c.version(w.Version),
		ConfirmedAt: c.time("confirmedAt", w.ConfirmedAt),
	}
	return result(c, e)
}

// DecodeOrderCancelled reads an OrderCancelled payload, see DecodeOrderCreated.
func DecodeOrderCancelled(body []byte) (OrderCancelled, error) {
	var w struct {
		rest
		OrderID     string `json:"orderId"`
		CustomerID  string `json:"customerId"`
		Reason      string `json:"reason"`
		Version     int64  `json:"version"`
		CancelledAt string `json:"cancelledAt"`
	}
	c := read(OrderCancelledType, body, &w)
	e := OrderCancelled{
		OrderID:     c.id("orderId", w.OrderID),
		CustomerID:  c.id("customerId", w.CustomerID),
		Reason:      c.reason(w.Reason),
		Version:     c.version(w.Version),
		CancelledAt: c.time("cancelledAt", w.CancelledAt),
	}
	return result(c, e)
}

const maxTotalCents = MaxItems * MaxQuantity * int64(MaxPriceCents)

// The wire types keep texts as texts, because the errors of uuid and time do
// not know their field's name, and point to numbers that may be 0: a missing
// one must not read as 0.
type (
	wireItem struct {
		rest
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	}
	wirePricedItem struct {
		rest
		ProductID      string `json:"productId"`
		Quantity       int64  `json:"quantity"`
		UnitPriceCents *int64 `json:"unitPriceCents"`
	}
	wireShortage struct {
		rest
		ProductID         string `json:"productId"`
		RequestedQuantity int64  `json:"requestedQuantity"`
		AvailableQuantity *int64 `json:"availableQuantity"`
		Reason            string `json:"reason"`
	}
)

// rest is part of every wire type: the members that it has no field for.
type rest struct {
	Members map[string]jsontext.Value `json:",embed"`
}

func (r *rest) names() []string { return slices.Sorted(maps.Keys(r.Members)) }

type wireType interface{ names() []string }

const maxReason = 64 // characters of a shortage's reason

// checker keeps the first thing wrong with a payload.
type checker struct {
	event string
	item  int // of items, from 1; 0 outside of them
	err   *InvalidError
}

func read(event string, body []byte, wire wireType) *checker {
	c := &checker{event: event}
	err := jsonv2.Unmarshal(body, wire)
	var syntax *jsontext.SyntacticError
	var semantic *jsonv2.SemanticError
	switch {
	case err == nil:
		c.variants(wire)
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		c.fail(fieldPath(syntax.JSONPointer), "is given twice")
	case errors.As(err, &semantic):
		c.fail(fieldPath(semantic.JSONPointer), "must not be a JSON "+kindName(semantic.JSONKind))
	default:
		c.fail("", err.Error())
	}
	return c
}

// variants refuses names that another reader might take for those of fields.
func (c *checker) variants(wire wireType) {
	for _, name := range wire.names() {
		t := reflect.TypeOf(wire).Elem()
		for i := range t.NumField() {
			if field := t.Field(i).Tag.Get("json"); strings.EqualFold(name, field) {
				c.fail(field, "is written as "+strconv.Quote(name))
			}
		}
	}
}

// fieldPath turns a JSON pointer (/items/0/quantity) into the form that errors
// use (items[0].quantity).
func fieldPath(pointer jsontext.Pointer) string {
	var path strings.Builder
	for token := range pointer.Tokens() {
		_, err := strconv.ParseUint(token, 10, 32)
		switch {
		case err == nil && path.Len() > 0:
			path.WriteString("[" + token + "]")
		case path.Len() > 0:
			path.WriteString("." + token)
		default:
			path.WriteString(token)
		}
	}
	return path.String()
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case jsontext.KindBeginObject:
		return "object"
	case jsontext.KindBeginArray:
		return "array"
	default:
		return kind.String()
	}
}

func result[T any](c *checker, event T) (T, error) {
	if c.err != nil {
		var none T
		return none, c.err
	}
	return event, nil
}

func (c *checker) fail(field, detail string) {
	if c.err != nil {
		return
	}
	if c.item > 0 {
		field = "items[" + strconv.Itoa(c.item-1) + "]." + field
	}
	c.err = &InvalidError{Event: c.event, Field: field, Detail: detail}
}

func (c *checker) id(field, text string) uuid.UUID {
	if text == "" {
		c.fail(field, "is required")
		return uuid.Nil
	}
	// uuid.Parse alone also takes urn:uuid:…, {…} and a form without dashes.
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len("00000000-0000-0000-0000-000000000000") || id == uuid.Nil {
		c.fail(field, "must be a UUID that is not nil")
	}
	return id
}

func (c *checker) time(field, text string) time.Time {
	if text == "" {
		c.fail(field, "is required")
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	t = t.UTC()
	// An offset can push the year out of what RFC 3339 can write.
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		c.fail(field, "must be a time from 1970 on, in RFC 3339 form")
	}
	return t
}

func (c *checker) number(field string, n, low, high int64) int64 {
	if n < low || n > high {
		c.fail(field, fmt.Sprintf("must be %d to %d", low, high))
	}
	return n
}

// orZero reads a number that may be 0 but must be there.
func (c *checker) orZero(field string, n *int64, high int64) int64 {
	if n == nil {
		c.fail(field, "is required")
		return 0
	}
	return c.number(field, *n, 0, high)
}

func (c *checker) version(n int64) int {
	return int(c.number("version", n, 1, math.MaxInt32))
}

func (c *checker) currency(code string) string {
	ok := len(code) == 3
	for i := 0; ok && i < len(code); i++ {
		ok = 'A' <= code[i] && code[i] <= 'Z'
	}
	if !ok {
		c.fail("currency", "must be an ISO 4217 code of three capital letters")
	}
	return code
}

func (c *checker) reason(reason string) string {
	switch reason {
	case ReasonStockNotAvailable, ReasonCustomerRequest, ReasonTimedOut:
	default:
		c.fail("reason", "must be StockNotAvailable, CustomerRequest or TimedOut")
	}
	return reason
}

// each reads items one by one with convert, which also returns the product.
func each[W, T any](c *checker, wire []W, convert func(w *W) (uuid.UUID, T)) []T {
	if len(wire) < 1 || len(wire) > MaxItems {
		c.fail("items", fmt.Sprintf("must have 1 to %d entries", MaxItems))
		return nil
	}
	items := make([]T, len(wire))
	products := make([]uuid.UUID, len(wire))
	for i := range wire {
		c.item = i + 1
		c.variants(any(&wire[i]).(wireType))
		products[i], items[i] = convert(&wire[i])
		if slices.Contains(products[:i], products[i]) {
			c.fail("productId", "must not repeat an earlier item's")
		}
	}
	c.item = 0
	return items
}

func (c *checker) items(wire []wireItem) []Item {
	return each(c, wire, func(w *wireItem) (uuid.UUID, Item) {
		item := Item{
			ProductID: c.id("productId", w.ProductID),
			Quantity:  int(c.number("quantity", w.Quantity, 1, MaxQuantity)),
		}
		return item.ProductID, item
	})
}

func (c *checker) pricedItems(wire []wirePricedItem) []PricedItem {
	return each(c, wire, func(w *wirePricedItem) (uuid.UUID, PricedItem) {
		item := PricedItem{
			ProductID:      c.id("productId", w.ProductID),
			Quantity:       int(c.number("quantity", w.Quantity, 1, MaxQuantity)),
			UnitPriceCents: c.orZero("unitPriceCents", w.UnitPriceCents, MaxPriceCents),
		}
		return item.ProductID, item
	})
}

func (c *checker) shortages(wire []wireShortage) []Shortage {
	return each(c, wire, func(w *wireShortage) (uuid.UUID, Shortage) {
		item := Shortage{
			ProductID:         c.id("productId", w.ProductID),
			RequestedQuantity: int(c.number("requestedQuantity", w.RequestedQuantity, 1, MaxQuantity)),
			AvailableQuantity: int(c.orZero("availableQuantity", w.AvailableQuantity, math.MaxInt32)),
			Reason:            w.Reason,
		}
		if utf8.RuneCountInString(w.Reason) > maxReason {
			c.fail("reason", fmt.Sprintf("must have at most %d characters", maxReason))
		}
		return item.ProductID, item
	})
}

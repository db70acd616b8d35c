package api

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"orderflow.internal/kit/web"
	"orderflow.internal/products/internal/product"
)

// A pointer tells a missing number from 0.

func readAdded(w http.ResponseWriter, r *http.Request) (product.Product, error) {
	var body struct {
		ProductID  *uuid.UUID `json:"productId"`
		Name       string     `json:"name"`
		PriceCents *int64     `json:"priceCents"`
		Currency   *string    `json:"currency"`
		Stock      *int64     `json:"stock"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return product.Product{}, err
	}
	var c checker
	c.name("name", body.Name)
	c.number("priceCents", body.PriceCents, 0, product.MaxPriceCents)
	c.currency("currency", body.Currency)
	c.number("stock", body.Stock, 0, product.MaxAdded)
	if body.ProductID != nil && *body.ProductID == uuid.Nil {
		c.fail("productId", "must not be the nil UUID")
	}
	if c.bad != nil {
		return product.Product{}, web.Invalid(c.bad...)
	}
	p := product.Product{
		Name:       body.Name,
		PriceCents: *body.PriceCents,
		Currency:   product.DefaultCurrency,
		Stock:      int(*body.Stock),
	}
	if body.Currency != nil {
		p.Currency = *body.Currency
	}
	if body.ProductID != nil {
		p.ID = *body.ProductID
		return p, nil
	}
	var err error
	if p.ID, err = uuid.NewV7(); err != nil {
		return p, fmt.Errorf("make a product id: %w", err)
	}
	return p, nil
}

type changeBody struct {
	Name       string  `json:"name"`
	PriceCents *int64  `json:"priceCents"`
	Currency   *string `json:"currency"`
}

func readChange(w http.ResponseWriter, r *http.Request) (changeBody, error) {
	var body changeBody
	if err := web.Read(w, r, &body); err != nil {
		return body, err
	}
	var c checker
	c.name("name", body.Name)
	c.number("priceCents", body.PriceCents, 0, product.MaxPriceCents)
	c.currency("currency", body.Currency)
	if c.bad != nil {
		return body, web.Invalid(c.bad...)
	}
	return body, nil
}

func readRestock(w http.ResponseWriter, r *http.Request) (quantity int, err error) {
	var body struct {
		Quantity *int64 `json:"quantity"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return 0, err
	}
	var c checker
	c.number("quantity", body.Quantity, 1, product.MaxAdded)
	if c.bad != nil {
		return 0, web.Invalid(c.bad...)
	}
	return int(*body.Quantity), nil
}

// checker collects every field that breaks a rule.
type checker struct {
	bad []web.FieldError
}

func (c *checker) fail(field, detail string) {
	c.bad = append(c.bad, web.FieldError{Field: field, Detail: detail})
}

func (c *checker) name(field, s string) {
	switch {
	case strings.TrimSpace(s) == "":
		c.fail(field, "is required and must not be blank")
	case utf8.RuneCountInString(s) > product.MaxName:
		c.fail(field, fmt.Sprintf("must have at most %d characters", product.MaxName))
	case strings.ContainsFunc(s, unicode.IsControl):
		c.fail(field, "must not contain control characters")
	}
}

func (c *checker) number(field string, n *int64, low, high int64) {
	switch {
	case n == nil:
		c.fail(field, "is required")
	case *n < low || *n > high:
		c.fail(field, fmt.Sprintf("must be %d to %d", low, high))
	}
}

func (c *checker) currency(field string, s *string) {
	if s == nil {
		return
	}
	code := strings.Trim(*s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if len(*s) != 3 || code != "" {
		c.fail(field, "must be an ISO 4217 code of three capital letters")
	}
}

package api

import (
	"fmt"
	"net/http"
	"strings"

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
	var f web.Faults
	f.Text("name", body.Name, product.MaxName)
	f.Number("priceCents", body.PriceCents, 0, product.MaxPriceCents)
	checkCurrency(&f, body.Currency)
	f.Number("stock", body.Stock, 0, product.MaxAdded)
	f.ID("productId", body.ProductID)
	if err := f.Err(); err != nil {
		return product.Product{}, err
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
	var f web.Faults
	f.Text("name", body.Name, product.MaxName)
	f.Number("priceCents", body.PriceCents, 0, product.MaxPriceCents)
	checkCurrency(&f, body.Currency)
	return body, f.Err()
}

func readRestock(w http.ResponseWriter, r *http.Request) (quantity int, err error) {
	var body struct {
		Quantity *int64 `json:"quantity"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return 0, err
	}
	var f web.Faults
	f.Number("quantity", body.Quantity, 1, product.MaxAdded)
	if err := f.Err(); err != nil {
		return 0, err
	}
	return int(*body.Quantity), nil
}

func checkCurrency(f *web.Faults, s *string) {
	if s == nil {
		return
	}
	code := strings.Trim(*s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if len(*s) != 3 || code != "" {
		f.Add("currency", "must be an ISO 4217 code of three capital letters")
	}
}

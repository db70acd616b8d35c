package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const (
	demoCustomer = "550e8400-e29b-41d4-a716-446655440000"
	demoProduct  = "550e8400-e29b-41d4-a716-446655440001"
)

type product struct {
	ID         string `json:"productId"`
	Name       string `json:"name"`
	PriceCents int    `json:"priceCents"`
	Currency   string `json:"currency"`
	Stock      int    `json:"stock"`
}

// catalogue is what a new system has to sell. Ids are fixed, so that filling it twice changes nothing.
var catalogue = []product{
	{demoProduct, "Mechanical keyboard, tactile switches", 12_900, "EUR", 1_000},
	{"550e8400-e29b-41d4-a716-446655440002", "27-inch 4K monitor", 42_900, "EUR", 120},
	{"550e8400-e29b-41d4-a716-446655440003", "USB-C dock, 11 ports", 18_900, "EUR", 250},
	{"550e8400-e29b-41d4-a716-446655440004", "Noise-cancelling headphones", 27_900, "EUR", 180},
	{"550e8400-e29b-41d4-a716-446655440005", "Standing desk, oak", 64_900, "EUR", 25},
	{"550e8400-e29b-41d4-a716-446655440006", "Desk lamp with daylight sensor", 8_900, "EUR", 400},
	{"550e8400-e29b-41d4-a716-446655440007", "Webcam, 4K", 14_900, "EUR", 300},
	{"550e8400-e29b-41d4-a716-446655440008", "Laptop stand, aluminum", 4_900, "EUR", 600},
	{"550e8400-e29b-41d4-a716-446655440009", "Keycap set, limited edition", 6_900, "EUR", 3},
}

// fillCatalogue adds the products that are not there yet.
func fillCatalogue(ctx context.Context, base string) error {
	for _, p := range catalogue {
		status, answer, err := call(ctx, http.MethodPost, base+"/products", p, nil)
		if err != nil {
			return err
		}
		if status != http.StatusCreated && status != http.StatusConflict {
			return fmt.Errorf("add product %s: status %d: %s", p.ID, status, answer)
		}
	}
	return nil
}

// call sends JSON and returns the answer.
func call(ctx context.Context, method, url string, body any, header http.Header) (status int, answer []byte, err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, answer, err
}

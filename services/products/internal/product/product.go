// Package product holds the catalog's types and the rule by which orders take
// stock. It knows no database and no broker.
package product

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

const (
	// MaxStock is the most units of one product there can be, reserved ones
	// included: the largest integer that every JSON reader gets right (RFC 8259,
	// section 6). Bounding the sum means that giving stock back never overflows.
	MaxStock = 1<<53 - 1
	// MaxAdded is the most units that one request may bring in.
	MaxAdded = 1_000_000_000
	// MaxPriceCents is the highest price of one unit.
	MaxPriceCents = 100_000_000
	// MaxName is the length of the longest name, in characters.
	MaxName = 200
	// DefaultCurrency is that of products that name none.
	DefaultCurrency = "EUR"
)

// Product is one entry of the catalog with its stock.
type Product struct {
	ID         uuid.UUID `json:"productId"`
	Name       string    `json:"name"`
	PriceCents int64     `json:"priceCents"`
	Currency   string    `json:"currency"` // ISO 4217
	Stock      int       `json:"stock"`    // units that can still be ordered
	// Reserved are the units that orders hold: pending ones, and confirmed ones
	// for good. Stock + Reserved <= MaxStock.
	Reserved int `json:"reserved"`
	// Version counts edits and restocking. Orders leave it alone: otherwise
	// every order would make an editor's page stale.
	Version   int64     `json:"version"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

var (
	// ErrNotFound: no such product, or it was deleted.
	ErrNotFound = errors.New("product not found")
	// ErrExists: the id is taken, possibly by a deleted product, whose orders
	// may still give stock back to it.
	ErrExists = errors.New("product already exists")
	// ErrStale: the product was edited since the caller read it.
	ErrStale = errors.New("product was changed in the meantime")
	// ErrTooMuchStock: the sum of stock and reserved would exceed MaxStock.
	ErrTooMuchStock = errors.New("too much stock")
)

package product

import (
	"bytes"
	"slices"

	"github.com/google/uuid"
)

// Item is a number of units of one product.
type Item struct {
	ProductID uuid.UUID `json:"productId"`
	Quantity  int       `json:"quantity"`
}

// PricedItem is an item with the price it was reserved at, per unit.
type PricedItem struct {
	Item
	UnitPriceCents int64
}

// Shortage is an item that could not be had, with how much there was.
type Shortage struct {
	Item
	Available     int
	OtherCurrency bool // nothing is available because the order is in another currency
}

// Reservation is the answer to one order: Items in one Currency, or what was
// Short. Exactly one of Items and Short is filled.
type Reservation struct {
	Items    []PricedItem
	Currency string
	Short    []Shortage
}

// Shelf is the stock of some products while a batch of orders takes from it.
type Shelf struct {
	products map[uuid.UUID]*slot
}

type slot struct {
	Product
	taken int
}

// NewShelf puts products on a shelf. What is not there has 0 available.
func NewShelf(products []Product) *Shelf {
	s := &Shelf{products: make(map[uuid.UUID]*slot, len(products))}
	for _, p := range products {
		s.products[p.ID] = &slot{Product: p}
	}
	return s
}

// Reserve takes all items off the shelf or none. An order has one currency,
// that of its first item that is known here; nothing of a product priced in
// another one is available to it.
func (s *Shelf) Reserve(items []Item) Reservation {
	r := Reservation{Items: make([]PricedItem, 0, len(items))}
	for _, item := range items {
		p := s.products[item.ProductID]
		if p != nil && r.Currency == "" {
			r.Currency = p.Currency
		}
		otherCurrency := p != nil && p.Currency != r.Currency
		available := 0
		if p != nil && !otherCurrency {
			available = p.Stock
		}
		if item.Quantity > available {
			r.Short = append(r.Short, Shortage{Item: item, Available: available, OtherCurrency: otherCurrency})
			continue
		}
		p.take(item.Quantity)
		r.Items = append(r.Items, PricedItem{Item: item, UnitPriceCents: p.PriceCents})
	}
	if r.Short == nil {
		return r
	}
	for _, item := range r.Items {
		s.products[item.ProductID].take(-item.Quantity)
	}
	return Reservation{Short: r.Short}
}

func (p *slot) take(quantity int) {
	p.Stock -= quantity
	p.Reserved += quantity
	p.taken += quantity
}

// Taken returns what all reservations together took, one item for each product
// that lost any, ordered by product.
func (s *Shelf) Taken() []Item {
	taken := make([]Item, 0, len(s.products))
	for id, p := range s.products {
		if p.taken != 0 {
			taken = append(taken, Item{ProductID: id, Quantity: p.taken})
		}
	}
	return sorted(taken)
}

// Sum adds up items, one for each product, ordered by product.
func Sum(items []Item) []Item {
	byProduct := make(map[uuid.UUID]int, len(items))
	for _, item := range items {
		byProduct[item.ProductID] += item.Quantity
	}
	sum := make([]Item, 0, len(byProduct))
	for id, quantity := range byProduct {
		sum = append(sum, Item{ProductID: id, Quantity: quantity})
	}
	return sorted(sum)
}

func sorted(items []Item) []Item {
	slices.SortFunc(items, func(a, b Item) int {
		return bytes.Compare(a.ProductID[:], b.ProductID[:])
	})
	return items
}

// Package customer holds the types of profiles and order histories. It knows no
// database and no broker.
package customer

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// Lengths of the longest name and email, in characters.
const (
	MaxName  = 200
	MaxEmail = 254
)

// Customer is a profile. Name and email are personal data: they belong in no
// log and no span.
type Customer struct {
	ID        uuid.UUID `json:"customerId"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	Version   int64     `json:"version"` // counts the edits
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

var (
	// ErrNotFound: no such profile.
	ErrNotFound = errors.New("customer not found")
	// ErrExists: a profile with this id exists.
	ErrExists = errors.New("customer already exists")
	// ErrStale: the profile was edited since the caller read it.
	ErrStale = errors.New("customer was changed in the meantime")
)

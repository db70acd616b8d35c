package identity

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Caller is who sent a request. The zero value is somebody without a token.
type Caller struct {
	// ID stands for issuer and subject of the token, and is the same for all
	// tokens of both. It is nil without a token.
	ID         uuid.UUID
	Subject    string    // of the token, as its issuer knows it; at most maxSubject bytes of it
	Customer   uuid.UUID // whose customer it is; nil: no customer
	Stock      bool      // may change the catalog
	Operations bool      // may do everything
	Expires    time.Time // of the token
}

// anyone is the caller where there is no issuer.
var anyone = Caller{Stock: true, Operations: true}

type callerKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns the caller that ctx carries, nobody when there is none.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller) // the zero value is nobody
	return c
}

// Owner is whose rows the caller may see and change.
func (c Caller) Owner() Owner { return Owner{customer: c.Customer, everyone: c.Operations} }

// Owner selects the rows that belong to a customer. The zero value selects none,
// as uuid.Nil is nobody's id.
type Owner struct {
	customer uuid.UUID
	everyone bool
}

// Everyone owns every row: for what a service does by itself.
func Everyone() Owner { return Owner{everyone: true} }

// Arg is the argument of a condition of the form
//
//	($n::uuid is null or customer_id = $n)
func (o Owner) Arg() *[16]byte {
	if o.everyone {
		return nil
	}
	return (*[16]byte)(&o.customer)
}

// Only returns the one customer whose rows are selected; ok is false for
// everyone's.
func (o Owner) Only() (id uuid.UUID, ok bool) { return o.customer, !o.everyone }

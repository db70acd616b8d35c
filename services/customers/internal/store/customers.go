package store

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/postgres"
)

// customerColumns are customer.Customer's fields.
const customerColumns = `customer_id, name, email, version, created_at, updated_at`

// write is one for a statement that writes, which may have taken effect when its
// error is of unknown outcome.
func (s *Store) write(ctx context.Context, sql string, args ...any) (customer.Customer, error) {
	c, err := s.one(ctx, sql, args...)
	return c, postgres.Written(err)
}

// one runs a query that returns one customer or, for pgx.ErrNoRows, none.
func (s *Store) one(ctx context.Context, sql string, args ...any) (customer.Customer, error) {
	return postgres.One(ctx, s.pool, pgx.RowToStructByPos[customer.Customer], sql, args...)
}

// Customers lists up to limit of the owner's, in the order they were added, from
// the one behind after, of which CreatedAt and ID count; its zero value is before
// the first.
func (s *Store) Customers(ctx context.Context, owner identity.Owner, after customer.Customer,
	limit int) (list []customer.Customer, err error) {
	defer fault.Wrap(&err, "list customers")
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[customer.Customer], `
select `+customerColumns+`
from customers
where (created_at, customer_id) > ($1, $2)
  and ($4::uuid is null or customer_id = $4)
order by created_at, customer_id
limit $3`, after.CreatedAt, after.ID, limit, owner.Arg())
}

// Customer returns one profile, if owner stands for it, or customer.ErrNotFound.
func (s *Store) Customer(ctx context.Context, owner identity.Owner, id uuid.UUID) (found customer.Customer, err error) {
	defer fault.Wrap(&err, "customer %s", id)
	c, err := s.one(ctx, `
select `+customerColumns+`
from customers
where customer_id = $1
  and ($2::uuid is null or customer_id = $2)`, id, owner.Arg())
	if errors.Is(err, pgx.ErrNoRows) {
		err = customer.ErrNotFound
	}
	return c, err
}

// Create adds a profile and returns it as stored, or customer.ErrExists.
func (s *Store) Create(ctx context.Context, c customer.Customer) (found customer.Customer, err error) {
	defer fault.Wrap(&err, "create customer %s", c.ID)
	created, err := s.write(ctx, `
insert into customers (customer_id, name, email)
values ($1, $2, $3)
on conflict (customer_id) do nothing
returning `+customerColumns, c.ID, c.Name, c.Email)
	if errors.Is(err, pgx.ErrNoRows) {
		err = customer.ErrExists
	}
	return created, err
}

// Edit changes the profile, if owner stands for it and it has one of the versions (nil: whichever it
// has), and returns it as stored; otherwise customer.ErrStale or
// customer.ErrNotFound.
func (s *Store) Edit(ctx context.Context, owner identity.Owner, id uuid.UUID,
	versions []int64, name, email string) (found customer.Customer, err error) {
	defer fault.Wrap(&err, "edit customer %s", id)
	c, err := s.write(ctx, `
update customers
set name = $3,
    email = $4,
    version = version + 1,
    updated_at = now()
where customer_id = $1
  and ($2::bigint[] is null or version = any($2))
  and ($5::uuid is null or customer_id = $5)
returning `+customerColumns, id, versions, name, email, owner.Arg())
	if errors.Is(err, pgx.ErrNoRows) {
		// Profiles are never deleted: one that is there has another version.
		if _, err = s.Customer(ctx, owner, id); err == nil {
			err = customer.ErrStale
		}
	}
	return c, err
}

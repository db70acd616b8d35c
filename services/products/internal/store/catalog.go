package store

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/products/internal/product"
)

// productColumns are product.Product's fields.
const productColumns = `product_id, name, price_cents, currency, stock, reserved, version, created_at, updated_at`

// write is one for a statement that writes, which may have taken effect when its
// error is of unknown outcome.
func (s *Store) write(ctx context.Context, sql string, args ...any) (product.Product, error) {
	p, err := s.one(ctx, sql, args...)
	return p, postgres.Written(err)
}

// one runs a query that returns one product or, for pgx.ErrNoRows, none.
func (s *Store) one(ctx context.Context, sql string, args ...any) (product.Product, error) {
	return postgres.One(ctx, s.pool, pgx.RowToStructByPos[product.Product], sql, args...)
}

// Products lists up to limit products in the order they were created, from the
// one behind after, of which CreatedAt and ID count; its zero value is before
// the first.
func (s *Store) Products(ctx context.Context, after product.Product, limit int) (list []product.Product, err error) {
	defer fault.Wrap(&err, "list products")
	return postgres.All(ctx, s.pool, pgx.RowToStructByPos[product.Product], `
select `+productColumns+`
from products
where (created_at, product_id) > ($1, $2)
  and deleted_at is null
order by created_at, product_id
limit $3`, after.CreatedAt, after.ID, limit)
}

// Product returns one product or product.ErrNotFound.
func (s *Store) Product(ctx context.Context, id uuid.UUID) (found product.Product, err error) {
	defer fault.Wrap(&err, "product %s", id)
	p, err := s.one(ctx, `
select `+productColumns+`
from products
where product_id = $1
  and deleted_at is null`, id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = product.ErrNotFound
	}
	return p, err
}

// Create adds a product and returns it as stored, or product.ErrExists.
func (s *Store) Create(ctx context.Context, p product.Product) (found product.Product, err error) {
	defer fault.Wrap(&err, "create product %s", p.ID)
	created, err := s.write(ctx, `
insert into products (product_id, name, price_cents, currency, stock, supplied)
values ($1, $2, $3, $4, $5, $5::bigint)
on conflict (product_id) do nothing
returning `+productColumns, p.ID, p.Name, p.PriceCents, p.Currency, p.Stock)
	if errors.Is(err, pgx.ErrNoRows) {
		err = product.ErrExists
	}
	return created, err
}

// Edit changes name, price and, unless nil, currency of the product if it has
// one of the versions (nil: whichever it has), and returns it as stored;
// otherwise product.ErrStale or product.ErrNotFound.
func (s *Store) Edit(ctx context.Context, id uuid.UUID, versions []int64, name string, priceCents int64,
	currency *string) (found product.Product, err error) {
	defer fault.Wrap(&err, "edit product %s", id)
	found, err = s.write(ctx, `
update products
set name = $3,
    price_cents = $4,
    currency = coalesce($5, currency),
    version = version + 1,
    updated_at = now()
where product_id = $1
  and ($2::bigint[] is null or version = any($2))
  and deleted_at is null
returning `+productColumns, id, versions, name, priceCents, currency)
	return found, s.whyNone(ctx, err, id, versions, product.ErrStale)
}

// Delete takes the product out of the catalog if it has one of the versions,
// with the errors of Edit. No order gets it from now on.
func (s *Store) Delete(ctx context.Context, id uuid.UUID, versions []int64) (err error) {
	defer fault.Wrap(&err, "delete product %s", id)
	tag, err := s.pool.Exec(ctx, `
update products
set deleted_at = now(),
    updated_at = now()
where product_id = $1
  and ($2::bigint[] is null or version = any($2))
  and deleted_at is null`, id, versions)
	if err = postgres.Written(err); err == nil && tag.RowsAffected() == 0 {
		err = s.whyNone(ctx, pgx.ErrNoRows, id, versions, product.ErrStale)
	}
	return err
}

// Restock adds quantity units if the product has one of the versions, with the
// errors of Edit or product.ErrTooMuchStock, and returns it as stored.
func (s *Store) Restock(ctx context.Context, id uuid.UUID, versions []int64,
	quantity int) (found product.Product, err error) {
	defer fault.Wrap(&err, "restock product %s", id)
	found, err = s.write(ctx, `
update products
set stock = stock + $3,
    supplied = supplied + $3,
    version = version + 1,
    updated_at = now()
where product_id = $1
  and ($2::bigint[] is null or version = any($2))
  and stock + reserved + $3 <= $4
  and deleted_at is null
returning `+productColumns, id, versions, quantity, product.MaxStock)
	return found, s.whyNone(ctx, err, id, versions, product.ErrTooMuchStock)
}

// whyNone turns pgx.ErrNoRows of a conditional update into product.ErrNotFound,
// product.ErrStale when the product has another version, or else into unmet,
// the error of the update's other condition.
func (s *Store) whyNone(ctx context.Context, err error, id uuid.UUID, versions []int64, unmet error) error {
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var version int64
	err = s.pool.QueryRow(ctx, `
select version
from products
where product_id = $1
  and deleted_at is null`, id).Scan(&version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return product.ErrNotFound
	case err != nil:
		return err
	case versions != nil && !slices.Contains(versions, version):
		return product.ErrStale
	}
	return unmet
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

const (
	forgetSummary      = "give back the stock of orders that no longer exist, and forget them"
	reservationSummary = "make a reservation agree with what orders says"
	recountSummary     = "recompute the stock and reserved of products from what came in and what reservations hold"
)

const forgetHelp = `Usage: forget --order ID ... [--yes]

For orders that the orders' database has lost, as after restoring it from a backup: gives back what they hold, and
removes what is known about them. An order that still exists would be reserved again if its OrderCreated
were published again.

` + audit.RepairFlags

const reservationHelp = `Usage: reservation --order ID --status STATUS [--item PRODUCT=QUANTITY[@CENTS] ...]
                   [--currency CODE] [--customer ID] [--yes]

Sets the reservation of one order, moves the stock by what that changes, and stores those of its events that the outbox
lacks, which the service then publishes. The audit prints the whole command.

  --status STATUS  Reserved (it holds the items), Released (it held them), Refused or Expired (it never did)
  --item P=N@C     N units of product P, at C cents each; may be repeated. @C is for all of them or none, which
                   means today's prices.
  --currency CODE  of the prices, needed with them; today's have their own
  --customer ID    whose order it is
` + audit.RepairFlags

const recountHelp = `Usage: recount [--product ID ...] [--yes]

Compares reserved with the sum of all reservations, and stock with what is left of all that ever came in, for the given
products or all of them, and corrects them by the difference. Orders continue meanwhile.

  --product ID   this product; may be repeated
  --by NAME      who is doing it, for the record (the user and host of the process)
  --yes          do it

Without --yes it only shows what it would do. What it does is recorded in the table repairs, with what was there before.
`

// withStore runs do with a store; the service that runs publishes what it stores.
func withStore(ctx context.Context, cfg config, do func(*store.Store) error) error {
	pool, err := postgres.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer postgres.Close(pool)
	return do(store.New(pool, func([]bus.Event) {}))
}

func forget(ctx context.Context, call run.Call, cfg config) error {
	r, err := audit.ParseRepair(call, "products forget", nil)
	if err == nil {
		err = r.NeedOrders()
	}
	if err != nil {
		return err
	}
	return withStore(ctx, cfg, func(s *store.Store) error {
		forgotten, err := s.Forget(ctx, r)
		r.Done(forgotten)
		return err
	})
}

func setReservation(ctx context.Context, call run.Call, cfg config) error {
	var said store.Statement
	prices := 0
	r, err := audit.ParseRepair(call, "products reservation", func(flags *flag.FlagSet) {
		flags.StringVar(&said.Status, "status", "", "")
		flags.StringVar(&said.Currency, "currency", "", "")
		flags.TextVar(&said.Customer, "customer", uuid.Nil, "")
		flags.Func("item", "", func(value string) error {
			item, priced, err := parseItem(value)
			said.Items = append(said.Items, item)
			if priced {
				prices++
			}
			return err
		})
	})
	statuses := []string{books.ReservationReserved, books.ReservationReleased, books.ReservationRefused,
		books.ReservationExpired}
	switch {
	case err != nil:
		return err
	case len(r.Orders) != 1:
		return fmt.Errorf("%w: one --order is needed", run.ErrUsage)
	case !slices.Contains(statuses, said.Status):
		return fmt.Errorf("%w: --status must be one of %s", run.ErrUsage, strings.Join(statuses, ", "))
	case len(said.Items) == 0:
		return fmt.Errorf("%w: --item is needed", run.ErrUsage)
	case prices > 0 && prices < len(said.Items):
		return fmt.Errorf("%w: %d of %d --item lack their price, @CENTS",
			run.ErrUsage, len(said.Items)-prices, len(said.Items))
	case prices > 0 && said.Currency == "":
		return fmt.Errorf("%w: --currency is needed with prices", run.ErrUsage)
	}
	// A currency alone passes: the audit names that of an order whose prices are lost.
	said.Priced = prices > 0
	return withStore(ctx, cfg, func(s *store.Store) error {
		changed, err := s.SetReservation(ctx, r, said)
		n := 0
		if changed {
			n = 1
		}
		r.Done(n)
		return err
	})
}

// parseItem reads PRODUCT=QUANTITY[@CENTS].
func parseItem(value string) (item product.PricedItem, priced bool, err error) {
	id, rest, _ := strings.Cut(value, "=")
	quantity, cents, priced := strings.Cut(rest, "@")
	var errs [3]error
	item.ProductID, errs[0] = uuid.Parse(id)
	item.Quantity, errs[1] = strconv.Atoi(quantity)
	if priced {
		item.UnitPriceCents, errs[2] = strconv.ParseInt(cents, 10, 64)
	}
	if errors.Join(errs[:]...) != nil || item.Quantity < 1 || item.UnitPriceCents < 0 {
		err = errors.New("must be PRODUCT=QUANTITY or PRODUCT=QUANTITY@CENTS")
	}
	return item, priced, err
}

func recount(ctx context.Context, call run.Call, cfg config) error {
	var products []uuid.UUID
	r, err := audit.ParseRepair(call, "products recount", func(flags *flag.FlagSet) {
		flags.Func("product", "", func(value string) error {
			id, err := uuid.Parse(value)
			products = append(products, id)
			return err
		})
	})
	if err == nil && len(r.Orders) > 0 {
		err = fmt.Errorf("%w: --order is not for recount, which takes --product", run.ErrUsage)
	}
	if err != nil {
		return err
	}
	return withStore(ctx, cfg, func(s *store.Store) error {
		wrong, err := s.Recount(ctx, r, products)
		r.Done(wrong)
		return err
	})
}

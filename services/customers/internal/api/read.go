package api

import (
	"fmt"
	"net/http"
	"net/mail"
	"unicode/utf8"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/web"
)

// readAdded reads a new profile: the caller's own, or for operations anybody's.
func readAdded(w http.ResponseWriter, r *http.Request, caller identity.Caller) (customer.Customer, error) {
	var body struct {
		CustomerID *uuid.UUID `json:"customerId"`
		Name       string     `json:"name"`
		Email      string     `json:"email"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return customer.Customer{}, err
	}
	var f web.Faults
	check(&f, body.Name, body.Email)
	f.ID("customerId", body.CustomerID)
	if err := f.Err(); err != nil {
		return customer.Customer{}, err
	}
	c := customer.Customer{Name: body.Name, Email: body.Email}
	if body.CustomerID == nil && caller.Customer != uuid.Nil {
		body.CustomerID = &caller.Customer
	}
	if !caller.Operations && *body.CustomerID != caller.Customer {
		return c, web.Forbidden("The access token is another customer's than customerId.")
	}
	if body.CustomerID != nil {
		c.ID = *body.CustomerID
		return c, nil
	}
	var err error
	if c.ID, err = uuid.NewV7(); err != nil {
		return c, fmt.Errorf("make a customer id: %w", err)
	}
	return c, nil
}

func readChange(w http.ResponseWriter, r *http.Request) (name, email string, err error) {
	var body struct {
		Name  string `json:"name"`
		Email string `json:"email"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return "", "", err
	}
	var f web.Faults
	check(&f, body.Name, body.Email)
	return body.Name, body.Email, f.Err()
}

func check(f *web.Faults, name, email string) {
	f.Text("name", name, customer.MaxName)
	// Whether an address works only a mail to it can tell; this finds slips.
	parsed, err := mail.ParseAddress(email)
	switch {
	case email == "":
		f.Add("email", "is required")
	case utf8.RuneCountInString(email) > customer.MaxEmail:
		f.Add("email", "must have at most %d characters", customer.MaxEmail)
	case err != nil || parsed.Address != email:
		f.Add("email", "must be an email address")
	}
}

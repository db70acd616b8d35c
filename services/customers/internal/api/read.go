package api

import (
	"fmt"
	"net/http"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"orderflow.internal/customers/internal/customer"
	"orderflow.internal/kit/web"
)

func readAdded(w http.ResponseWriter, r *http.Request) (customer.Customer, error) {
	var body struct {
		CustomerID *uuid.UUID `json:"customerId"`
		Name       string     `json:"name"`
		Email      string     `json:"email"`
	}
	if err := web.Read(w, r, &body); err != nil {
		return customer.Customer{}, err
	}
	bad := check(body.Name, body.Email)
	if body.CustomerID != nil && *body.CustomerID == uuid.Nil {
		bad = append(bad, web.FieldError{Field: "customerId", Detail: "must not be the nil UUID"})
	}
	if bad != nil {
		return customer.Customer{}, web.Invalid(bad...)
	}
	c := customer.Customer{Name: body.Name, Email: body.Email}
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
	if bad := check(body.Name, body.Email); bad != nil {
		return "", "", web.Invalid(bad...)
	}
	return body.Name, body.Email, nil
}

// check returns every field that breaks a rule. Its answers do not repeat the
// values, which are personal data.
func check(name, email string) (bad []web.FieldError) {
	fail := func(field, detail string) {
		bad = append(bad, web.FieldError{Field: field, Detail: detail})
	}
	switch {
	case strings.TrimSpace(name) == "":
		fail("name", "is required and must not be blank")
	case utf8.RuneCountInString(name) > customer.MaxName:
		fail("name", fmt.Sprintf("must have at most %d characters", customer.MaxName))
	case strings.ContainsFunc(name, unicode.IsControl):
		fail("name", "must not contain control characters")
	}
	// Whether an address works only a mail to it can tell; this finds slips.
	parsed, err := mail.ParseAddress(email)
	switch {
	case email == "":
		fail("email", "is required")
	case utf8.RuneCountInString(email) > customer.MaxEmail:
		fail("email", fmt.Sprintf("must have at most %d characters", customer.MaxEmail))
	case err != nil || parsed.Address != email:
		fail("email", "must be an email address")
	}
	return bad
}

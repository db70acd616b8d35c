package provider

import (
	"crypto/subtle"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Scopes that open something in Orderflow, besides what every customer may do.
const (
	ScopeStock      = "stock"
	ScopeOperations = "operations"
)

// Person is somebody who can sign in.
type Person struct {
	Name     string // to sign in with; the password is the same
	FullName string
	Customer string // customer id; "" for one who is no customer
	Scopes   []string
	About    string // what they may do, for the page to sign in
}

// People are the demo users. Their passwords are known to everybody, which is
// why this provider serves a loopback address only.
var People = []Person{
	{Name: "ada", FullName: "Ada Lovelace", Customer: "0ada0ada-0000-4000-8000-000000000001", About: "Customer"},
	{Name: "ben", FullName: "Ben Franklin", Customer: "0be00be0-0000-4000-8000-000000000002", About: "Customer"},
	{Name: "kim", FullName: "Kim Keeper", Scopes: []string{ScopeStock}, About: "Keeps the catalog and the stock"},
	{Name: "ops", FullName: "Olga Ops", Scopes: []string{ScopeOperations, ScopeStock}, About: "Sees and does everything"},
}

// person returns the one with the name.
func person(name string) (Person, bool) {
	i := slices.IndexFunc(People, func(p Person) bool { return p.Name == name })
	if i < 0 {
		return Person{}, false
	}
	return People[i], true
}

// known returns who signs in with the name and the password.
func known(name, password string) (Person, bool) {
	p, ok := person(name)
	if !ok || subtle.ConstantTimeCompare([]byte(password), []byte(p.Name)) != 1 {
		return Person{}, false
	}
	return p, true
}

// granted are those of the requested scopes that the person has.
func (p Person) granted(requested []string) []string {
	return slices.DeleteFunc(slices.Clone(requested), func(scope string) bool {
		switch scope {
		case oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeOfflineAccess:
			return false
		}
		return !slices.Contains(p.Scopes, scope)
	})
}

// Initial stands for the person in a picture.
func (p Person) Initial() string { return p.FullName[:1] }

const claimCustomer = "customer_id"

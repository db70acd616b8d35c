package stack

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
)

func TestHashPassword(t *testing.T) {
	raw, err := base64.StdEncoding.DecodeString(hashPassword("secret"))
	if err != nil || len(raw) != 4+sha256.Size {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if want := sha256.Sum256(append(raw[:4:4], "secret"...)); string(raw[4:]) != string(want[:]) {
		t.Error("not sha256(salt + password)")
	}
}

func TestWithPasswords(t *testing.T) {
	parsed, err := Options{Definitions: "testdata/definitions.json"}.topology()
	if err != nil {
		t.Fatal(err)
	}
	got, err := WithPasswords(*parsed, func(user string) string { return "p-" + user }, "admin")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Users []struct {
			Name string   `json:"name"`
			Hash string   `json:"password_hash"`
			Tags []string `json:"tags"`
		} `json:"users"`
		Permissions []struct{ User, Vhost, Configure string } `json:"permissions"`
		Queues      []struct{ Name string }                   `json:"queues"`
	}
	if err := json.Unmarshal(got, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Users) != 2 || d.Users[0].Name != "orders" || d.Users[1].Name != "admin" ||
		d.Users[1].Tags[0] != "administrator" {
		t.Errorf("users %+v", d.Users)
	}
	for _, u := range d.Users {
		if u.Hash == "" {
			t.Errorf("%s has no password hash", u.Name)
		}
	}
	if len(d.Permissions) != 2 || d.Permissions[1].User != "admin" || d.Permissions[1].Vhost != "orderflow" {
		t.Errorf("permissions %+v", d.Permissions)
	}
	if len(d.Queues) != 1 {
		t.Errorf("queues %+v", d.Queues)
	}
}

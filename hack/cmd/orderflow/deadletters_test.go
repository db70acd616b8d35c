package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// A list has as many items as it may, on however many pages of the API they are.
func TestListsOfLettersAreReadPageByPage(t *testing.T) {
	const all = 450
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, _ := strconv.Atoi(r.FormValue("limit")) // checked below
		after, _ := strconv.Atoi(r.FormValue("after")) // none is 0
		if limit < 1 || limit > largestPage || r.FormValue("queue") != "q" {
			t.Errorf("%s is asked for", r.URL)
		}
		text, next := "", ""
		for i := after; i < min(after+limit, all); i++ {
			text += fmt.Sprintf(`,{"letterId":%d}`, i+1)
		}
		if after+limit < all {
			next = fmt.Sprintf(`,"next":"%d"`, after+limit)
		}
		fmt.Fprintf(w, `{"letters":[%s]%s}`, text[1:], next)
	}))
	defer server.Close()
	for limit, want := range map[int]struct {
		found int
		more  bool
	}{1: {1, true}, 200: {200, true}, 201: {201, true}, 449: {449, true}, 450: {450, false}, 9999: {450, false}} {
		l := &letters{base: server.URL, queue: "q", limit: limit}
		found, more, err := l.pages(t.Context(), "", "letters")
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != want.found || more != want.more {
			t.Errorf("of %d letters %d are listed, and more is %t", limit, len(found), more)
		}
		if last := string(found[len(found)-1]); last != fmt.Sprintf(`{"letterId":%d}`, want.found) {
			t.Errorf("the last of %d letters is %s", want.found, last)
		}
	}
}

package web

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Headers between a service that takes only a share of its requests and a proxy
// before it, which can refuse the others at a tenth of the price. They never
// reach a client, and are not taken from one.
const (
	// AdmissionHeader is in the answers of the service: see Admission.
	AdmissionHeader = "Orderflow-Admission"
	// AdmittedHeader is in a request for which the proxy has drawn: the chance
	// that it had.
	AdmittedHeader = "Orderflow-Admitted"
)

// Admission is what a service takes at the moment.
type Admission struct {
	Share      float64       // of requests that is taken, 0 to 1
	RetryAfter time.Duration // for which those that are refused are asked to stay away
}

// Tell puts a into the header of an answer, unless all requests are taken.
func (a Admission) Tell(h http.Header) {
	if a.Share < 1 {
		h.Set(AdmissionHeader, formatShare(a.Share)+";retry="+strconv.Itoa(int(a.RetryAfter/time.Second)))
	}
}

// TakeAdmission takes what Tell has put there out of a header; ok tells whether
// there was something.
func TakeAdmission(h http.Header) (a Admission, ok bool) {
	text := h.Get(AdmissionHeader)
	if text == "" {
		return Admission{}, false
	}
	h.Del(AdmissionHeader)
	share, retry, _ := strings.Cut(text, ";retry=")
	seconds, err := strconv.Atoi(retry)
	if a.Share, ok = parseShare(share); !ok || err != nil || seconds < 0 {
		return Admission{}, false
	}
	a.RetryAfter = time.Duration(seconds) * time.Second
	return a, true
}

// Admit says in a request that it was drawn with a chance. One of 1 says nothing,
// whoever wrote something there before.
func Admit(h http.Header, chance float64) {
	if chance < 1 {
		h.Set(AdmittedHeader, formatShare(chance))
	} else {
		h.Del(AdmittedHeader)
	}
}

// Admitted is the chance that a request has had on its way here: 1 if nobody drew.
func Admitted(h http.Header) float64 {
	if chance, ok := parseShare(h.Get(AdmittedHeader)); ok && chance > 0 {
		return chance
	}
	return 1
}

func formatShare(share float64) string { return strconv.FormatFloat(share, 'f', 4, 64) }

func parseShare(text string) (share float64, ok bool) {
	share, err := strconv.ParseFloat(text, 64)
	return share, err == nil && share >= 0 && share <= 1
}

package web

import (
	"net/http"
	"strconv"
	"strings"
)

// SetVersion makes a resource's version the answer's entity tag, for IfMatch
// (RFC 9110, 8.8.3).
func SetVersion(w http.ResponseWriter, version int64) {
	w.Header().Set("ETag", tagOf(version))
}

func tagOf(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// IfMatch returns the versions under which a change may be made, nil when under
// each: those that If-Match names (RFC 9110, 13.1.1). Weak tags and tags that
// SetVersion does not write match nothing; what is no tag is a 400. A change
// that wants the resource not to exist (If-None-Match) is a 412, as no change
// here makes one.
func IfMatch(r *http.Request) ([]int64, error) {
	if r.Header["If-None-Match"] != nil {
		return nil, PreconditionFailed("If-None-Match never holds for a change of what exists; use If-Match.")
	}
	if r.Header["If-Match"] == nil {
		return nil, nil
	}
	header := strings.Join(r.Header["If-Match"], ",")
	if strings.Trim(header, " \t") == "*" {
		return nil, nil
	}
	versions := []int64{}
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.Trim(tag, " \t")
		opaque := strings.TrimPrefix(tag, "W/")
		if len(opaque) < 2 || opaque[0] != '"' || opaque[len(opaque)-1] != '"' ||
			strings.Contains(opaque[1:len(opaque)-1], `"`) {
			return nil, BadParameter("If-Match", `must be * or entity tags such as "3"`)
		}
		version, err := strconv.ParseInt(opaque[1:len(opaque)-1], 10, 64)
		if err == nil && tag == tagOf(version) {
			versions = append(versions, version)
		}
	}
	return versions, nil
}

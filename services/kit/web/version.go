package web

import (
	"net/http"
	"strconv"
	"strings"
)

// SetVersion makes a resource's version the answer's entity tag, for IfMatch
// (RFC 9110, 8.8.3).
func SetVersion(w http.ResponseWriter, version int64) {
	w.Header().Set("ETag", `"`+strconv.FormatInt(version, 10)+`"`)
}

// IfMatch returns the versions that If-Match names (RFC 9110, 13.1.1), nil when
// there is no condition. Weak tags and tags that are no versions match nothing.
func IfMatch(r *http.Request) ([]int64, error) {
	header := strings.Join(r.Header.Values("If-Match"), ",")
	if header == "" || header == "*" {
		return nil, nil
	}
	versions := []int64{}
	for tag := range strings.SplitSeq(header, ",") {
		strong := strings.Trim(tag, " \t")
		opaque := strings.TrimPrefix(strong, "W/")
		if len(opaque) < 2 || opaque[0] != '"' || opaque[len(opaque)-1] != '"' {
			return nil, BadParameter("If-Match", `must be * or entity tags such as "3"`)
		}
		version, err := strconv.ParseInt(opaque[1:len(opaque)-1], 10, 64)
		if err == nil && opaque == strong {
			versions = append(versions, version)
		}
	}
	return versions, nil
}

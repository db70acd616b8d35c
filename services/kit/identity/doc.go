// Package identity says who a caller is and what it may see.
//
// # Tokens
//
// A [Verifier] takes the JWT access tokens of one OpenID Connect issuer, by the
// rules of RFC 9068 and RFC 8725: the header's type and algorithm are on a short
// list, the signature is by one of the issuer's keys, the token is for us, and
// now is within its time. An ID token never passes. Keys are fetched in the
// background and again when a token names one that is not known; while the issuer
// is away, the known ones stay.
//
// # How the identity travels
//
// The gateway verifies the caller's token and passes it on as it came; each
// service verifies it again. So there is no header that an outside caller or
// another pod could make up, no key to hand out, and no service that has to
// believe another. The price is a signature for each token and process, not for
// each request: what was verified is remembered until it expires.
//
// # What a caller may do
//
// A route is [Public] or wants a customer, the scope for the catalog, or the one
// for operations ([Verifier.Only]). Which rows a customer gets is decided by the
// statement that reads or writes them: every store method takes an [Owner], whose
// zero value owns nothing.
//
// Without an issuer the system is open: every caller may do everything.
package identity

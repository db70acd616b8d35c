// Package styles is the design system of the web client's pages, for the pages
// that other programs show to people.
package styles

import "embed"

// Files are the style sheets and the fonts that they name.
//
//go:embed tokens.css base.css controls.css fonts/*.woff2
var Files embed.FS

package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// provider is what an issuer's discovery document tells.
type provider struct {
	Issuer string `json:"issuer"`
	Keys   string `json:"jwks_uri"`
	Token  string `json:"token_endpoint"`
}

// discover reads the document (OpenID Connect Discovery 1.0, section 4). One that
// is in another issuer's name is not that of ours.
func discover(ctx context.Context, client *http.Client, issuer string) (provider, error) {
	var p provider
	url := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	if err := getJSON(ctx, client, url, &p); err != nil {
		return p, err
	}
	if p.Issuer != issuer {
		return p, fmt.Errorf("%s is the document of issuer %q, not of AUTH_ISSUER=%q", url, p.Issuer, issuer)
	}
	return p, errors.Join(checkURL("jwks_uri", p.Keys), checkURL("token_endpoint", p.Token))
}

func getJSON(ctx context.Context, client *http.Client, url string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", url, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

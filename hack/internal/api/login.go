package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// MachineSecret is that of the client orderflow-machine at the development provider, whose secrets are known to
// everybody.
const MachineSecret = "only-for-development"

// Issuer is where tokens for a system come from.
type Issuer struct {
	Name   string
	Token  string `json:"token_endpoint"`
	Device string `json:"device_authorization_endpoint"`

	wanted settings
}

// settings are what a gateway says of its tokens.
type settings struct {
	Issuer     string   `json:"issuer"`
	Audience   string   `json:"audience"`
	Scopes     []string `json:"scopes"`
	Operations string   `json:"operationsScope"`
}

// Find asks a gateway for its issuer; nil means that none is needed, because everything is open.
func Find(ctx context.Context, base string) (*Issuer, error) {
	var wanted settings
	err := Get(ctx, strings.TrimSuffix(base, "/")+"/auth/config", &wanted)
	if problem, ok := errors.AsType[*Problem](err); ok && problem.Status == http.StatusNotFound {
		return nil, nil // a system that knows nothing of tokens
	}
	if err != nil || wanted.Issuer == "" {
		return nil, err
	}
	issuer := &Issuer{Name: wanted.Issuer, wanted: wanted}
	return issuer, Get(ctx, strings.TrimSuffix(wanted.Issuer, "/")+"/.well-known/openid-configuration", issuer)
}

// AsDevice gets a person's token by the device flow (RFC 8628): show tells the person where to go, or goes there.
func (i *Issuer) AsDevice(ctx context.Context, client string,
	show func(*oauth2.DeviceAuthResponse) error) (*oauth2.Token, error) {
	if i.Device == "" {
		return nil, fmt.Errorf("%s does not know the device flow", i.Name)
	}
	cfg := oauth2.Config{ClientID: client, Scopes: i.wanted.Scopes, Endpoint: oauth2.Endpoint{
		TokenURL: i.Token, DeviceAuthURL: i.Device, AuthStyle: oauth2.AuthStyleInParams,
	}}
	device, err := cfg.DeviceAuth(ctx)
	if err != nil {
		return nil, err
	}
	if err := show(device); err != nil {
		return nil, err
	}
	return cfg.DeviceAccessToken(ctx, device)
}

// Answer goes where the device flow sends people, as one of the development provider's users.
func Answer(ctx context.Context, user string) func(*oauth2.DeviceAuthResponse) error {
	return func(device *oauth2.DeviceAuthResponse) error {
		jar, err := cookiejar.New(nil)
		if err != nil {
			return err
		}
		browser := http.Client{Jar: jar}
		for _, step := range []struct {
			page string
			form url.Values
		}{
			{"/login", url.Values{"name": {user}, "password": {user}}},
			{"/device", url.Values{"decision": {"allow"}}},
		} {
			page, err := url.Parse(device.VerificationURI)
			if err != nil {
				return err
			}
			step.form.Set("user_code", device.UserCode)
			where, form := page.JoinPath("..", step.page).String(), strings.NewReader(step.form.Encode())
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, form)
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			res, err := browser.Do(req)
			if err != nil {
				return err
			}
			if err := res.Body.Close(); err != nil {
				return err
			}
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("sign in as %s: %s answers %s", user, step.page, res.Status)
			}
		}
		return nil
	}
}

// AsMachine gets tokens for a program: AUTH_CLIENT_ID with AUTH_CLIENT_SECRET, else those of the development provider.
func (i *Issuer) AsMachine(ctx context.Context) oauth2.TokenSource {
	cfg := clientcredentials.Config{
		ClientID:     cmp.Or(os.Getenv("AUTH_CLIENT_ID"), "orderflow-machine"),
		ClientSecret: cmp.Or(os.Getenv("AUTH_CLIENT_SECRET"), MachineSecret),
		TokenURL:     i.Token,
		Scopes:       []string{i.wanted.Operations},
		// Some issuers choose the audience by the one name, some by the other.
		EndpointParams: url.Values{"audience": {i.wanted.Audience}, "resource": {i.wanted.Audience}},
	}
	return cfg.TokenSource(ctx)
}

// Tokens are for a program at a gateway, renewed as needed; nil when none are needed.
func Tokens(ctx context.Context, base string) (oauth2.TokenSource, error) {
	issuer, err := Find(ctx, base)
	if err != nil || issuer == nil {
		return nil, err
	}
	return issuer.AsMachine(ctx), nil
}

// Context makes oauth2.NewClient(ctx, nil) a client with the tokens that the gateway wants of a program.
func Context(ctx context.Context, base string) (context.Context, error) {
	tokens, err := Tokens(ctx, base)
	if err != nil || tokens == nil {
		return ctx, err
	}
	return context.WithValue(ctx, oauth2.HTTPClient, oauth2.NewClient(ctx, tokens)), nil
}

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"orderflow.internal/hack/internal/api"
)

func (p program) login() *cobra.Command {
	var base, client, user string
	var machine bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Print an access token",
		Long: `Prints an access token for a system that wants one (hack/up --auth). You sign in with a browser, on any device;
the token is valid for some minutes. At the development provider --user signs in by itself, for scripts.`,
		Example: `  curl -H "Authorization: Bearer $(hack/login)" http://localhost:5108/orders
  hack/login --user ada      as the customer ada; also ben, kim (stock), ops (operations)
  hack/login --machine       as a program that may do everything`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			issuer, err := api.Find(ctx, base)
			if err != nil {
				return fmt.Errorf("start the system with hack/up --auth, or name another with --base-url: %w", err)
			}
			if issuer == nil {
				return errors.New("this system is open and needs no tokens: hack/up --auth starts one that does")
			}
			var token *oauth2.Token
			switch {
			case machine:
				token, err = issuer.AsMachine(ctx).Token()
			case user != "":
				token, err = issuer.AsDevice(ctx, client, api.Answer(ctx, user))
			default:
				token, err = issuer.AsDevice(ctx, client, func(d *oauth2.DeviceAuthResponse) error {
					_, err := fmt.Fprintf(os.Stderr, "Open %s\nand sign in, if the code there is %s\n",
						d.VerificationURIComplete, d.UserCode)
					return err
				})
			}
			if err != nil {
				return err
			}
			fmt.Println(token.AccessToken)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&base, "base-url", p.gateway(), "the gateway's `url`")
	f.StringVar(&client, "client", "orderflow-cli", "`id` of the client at the issuer")
	f.StringVar(&user, "user", "", "sign in as this `user` of the development provider")
	f.BoolVar(&machine, "machine", false, "sign in as a program, by AUTH_CLIENT_ID and AUTH_CLIENT_SECRET")
	cmd.MarkFlagsMutuallyExclusive("user", "machine")
	return cmd
}

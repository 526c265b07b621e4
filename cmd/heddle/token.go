package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
)

func tokenCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke join tokens, by which a sidecar gets its first identity",
	}
	c.AddCommand(tokenCreateCommand(e), tokenListCommand(e), tokenRevokeCommand(e))
	return c
}

func tokenCreateCommand(e *env) *cobra.Command {
	var f clientFlags
	var service, file string
	var ttl time.Duration
	var single, keep bool
	var uid int64
	c := &cobra.Command{
		Use:   "create --service SERVICE",
		Short: "Create a join token and print it; it cannot be had again",
		Long:  "Creates a token with which a sidecar can get the identity of one service. Keep it as a password.",
		Example: `  heddle token create --service api --ttl 1h --file api.token
  heddle token create --service db -n shop --single-use --uid 1000`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			request := &identityv1.CreateTokenRequest{Namespace: f.namespace, Service: service, Ttl: durationpb.New(ttl), SingleUse: single}
			if c.Flags().Changed("uid") {
				if uid < 0 || uid > 1<<32-1 {
					return usagef("--uid %d is not a user", uid)
				}
				u := uint32(uid)
				request.Uid = &u
			}
			if keep {
				if file == "" {
					return usagef("--keep is for --file")
				}
				if _, err := os.Stat(file); err == nil {
					return nil
				}
			}
			return f.run(c, func(ctx context.Context, cl *client) error { return createToken(ctx, e, cl, request, file) })
		},
	}
	f.add(c)
	c.Flags().StringVar(&service, "service", "", "service whose identity the token gives")
	c.Flags().StringVar(&file, "file", "", "write the token to this file, readable by nobody else, and not to the terminal")
	c.Flags().BoolVar(&keep, "keep", false, "leave a file that is there as it is, and create no token")
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token is good for")
	c.Flags().BoolVar(&single, "single-use", false, "the token is good for one SVID only")
	c.Flags().Int64Var(&uid, "uid", 0, "only processes of this user can use it, on the control plane's machine")
	must(c.MarkFlagRequired("service"))
	return c
}

func createToken(ctx context.Context, e *env, cl *client, request *identityv1.CreateTokenRequest, file string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out *os.File
	if file != "" { // before there is a token to lose
		var err error
		if out, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("make the token's file: %w", err)
		}
		defer out.Close()
	}
	reply, err := cl.identity.CreateToken(ctx, request)
	if err != nil {
		if out != nil {
			os.Remove(file)
		}
		return err
	}
	fmt.Fprintf(e.stderr, "token %s for %s, until %s\n", reply.GetToken().GetName(), reply.GetToken().GetSpiffeId(),
		reply.GetToken().GetExpires().AsTime().Local().Format(time.DateTime))
	if out == nil {
		_, err = fmt.Fprintln(e.stdout, reply.GetJoinToken())
		return err
	}
	if _, err = fmt.Fprintln(out, reply.GetJoinToken()); err != nil {
		return err
	}
	return out.Close()
}

// tokenItem is a token in JSON, without its secret.
type tokenItem struct {
	Name      string    `json:"name"`
	ID        string    `json:"spiffeId"`
	UID       *uint32   `json:"uid,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	SingleUse bool      `json:"singleUse"`
}

func tokenListCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the join tokens that are good still, without their secrets",
		Example: "  heddle token list -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.identity.ListTokens(ctx, &identityv1.ListTokensRequest{})
				if err != nil {
					return err
				}
				var items []tokenItem
				var rows [][]string
				for _, t := range reply.GetTokens() {
					items = append(items, tokenItem{t.GetName(), t.GetSpiffeId(), t.Uid, t.GetCreated().AsTime(), t.GetExpires().AsTime(), t.GetSingleUse()})
					user := "any"
					if t.Uid != nil {
						user = fmt.Sprint(*t.Uid)
					}
					rows = append(rows, []string{t.GetName(), t.GetSpiffeId(), user, fmt.Sprint(t.GetSingleUse()), t.GetExpires().AsTime().Local().Format(time.DateTime)})
				}
				if f.output != "" {
					return writeList(e.stdout, f.output, items)
				}
				return table(e.stdout, []string{"NAME", "IDENTITY", "UID", "SINGLE-USE", "EXPIRES"}, rows)
			})
		},
	}
	f.add(c, "json", "yaml")
	return c
}

func tokenRevokeCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "revoke NAME...",
		Short: "Make join tokens useless, also for the renewal of the SVIDs got with them",
		Long: `Ends join tokens. Nobody joins with one of them any more, and no SVID that goes back to one
is renewed; those that there are live on until they expire. Tokens that have expired or
are used up can be revoked too.`,
		Example: "  heddle token revoke 0a1b2c3d4e5f6071",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				for _, name := range names {
					if _, err := cl.identity.RevokeToken(ctx, &identityv1.RevokeTokenRequest{Name: name}); err != nil {
						return err
					}
					fmt.Fprintf(e.stdout, "token %s revoked\n", name)
				}
				return nil
			})
		},
	}
	f.add(c)
	return c
}

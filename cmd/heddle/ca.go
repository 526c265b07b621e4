package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
)

func caCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Show and replace the root of the mesh's certificates",
	}
	c.AddCommand(caShowCommand(e), caRotateCommand(e))
	return c
}

// rootItem is a root in JSON.
type rootItem struct {
	Fingerprint string     `json:"fingerprint"`
	Role        string     `json:"role"`
	Created     time.Time  `json:"created"`
	Expires     time.Time  `json:"expires"`
	Due         *time.Time `json:"due,omitempty"`
}

func caShowCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "show",
		Short: "List the roots that the mesh trusts, and how far a rotation is",
		Long: `Lists the root that signs, one that will sign and those that signed before. The fingerprint
is the SHA-256 that pods have in HEDDLE_ROOTS.`,
		Example: "  heddle ca show\n  heddle ca show --control-plane kubernetes -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.identity.ListRoots(ctx, &identityv1.ListRootsRequest{})
				if err != nil {
					return err
				}
				return showRoots(e, f.output, reply)
			})
		},
	}
	f.add(c, "json", "yaml")
	return c
}

func caRotateCommand(e *env) *cobra.Command {
	var f clientFlags
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the root that signs, without a failed request",
		Long: `Begins to replace the root of the mesh's certificates. A new root is made and trusted at
once. When every workload knows it, one life of an SVID later, it signs, and the key of the
former is destroyed; when the last SVID of the former has expired, it is trusted no more.
The control plane takes these steps by itself, also after a restart of its own: heddle ca
show says when. Nothing has to be restarted. Pods and join tokens that know a former root
only find the control plane still, for the last three rotations.

All control planes of the mesh must be of this version: finish an upgrade first. Where
the root is issued by somebody else, as by cert-manager, it is replaced there.`,
		Example: "  heddle ca rotate\n  heddle ca rotate --control-plane kubernetes",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.identity.RotateRoot(ctx, &identityv1.RotateRootRequest{})
				if err != nil {
					return err
				}
				return showRoots(e, "", reply)
			})
		},
	}
	f.add(c)
	return c
}

func showRoots(e *env, output string, reply *identityv1.ListRootsResponse) error {
	var items []rootItem
	var rows [][]string
	for _, r := range reply.GetRoots() {
		item := rootItem{Fingerprint: r.GetFingerprint(), Role: strings.ToLower(r.GetRole().String()), Created: r.GetCreated().AsTime(), Expires: r.GetExpires().AsTime()}
		next := "-"
		if r.GetDue() != nil {
			due := r.GetDue().AsTime()
			item.Due = &due
			what := map[identityv1.Root_Role]string{identityv1.Root_PREPARED: "signs from", identityv1.Root_FORMER: "trusted until"}[r.GetRole()]
			next = what + " " + due.Local().Format(time.DateTime)
		}
		items = append(items, item)
		rows = append(rows, []string{item.Fingerprint[:min(16, len(item.Fingerprint))], item.Role, item.Expires.Local().Format(time.DateTime), next})
	}
	if output != "" {
		return writeList(e.stdout, output, items)
	}
	if err := table(e.stdout, []string{"ROOT", "ROLE", "EXPIRES", "NEXT"}, rows); err != nil {
		return err
	}
	if reply.GetIssued() {
		_, err := fmt.Fprintf(e.stdout, "What signs is issued by somebody else, and expires on %s.\n", reply.GetIntermediateExpires().AsTime().Local().Format(time.DateTime))
		return err
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/install/kubernetes"
)

func checkCommand(e *env) *cobra.Command {
	var f clientFlags
	var strict, before bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the mesh, and say how to put right what is wrong",
		Long:  "Runs the self checks of the mesh. The exit code is 1 when one of them finds an error; warnings do not count unless --strict is given.\n\nOn Kubernetes it checks the cluster and the installation, too; --pre checks whether a cluster is fit for one.",
		Example: `  heddle check
  heddle check -o json
  heddle check --pre`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if before {
				k, _ := f.onCluster()
				ctx, cancel := context.WithTimeout(c.Context(), callTimeout)
				defer cancel()
				findings, err := k.check(ctx, (*kubernetes.Checker).Before)
				if err != nil {
					return err
				}
				return f.tellFindings(e, findings, strict)
			}
			k, cluster := f.onCluster()
			if !cluster {
				findings, err := f.checkMesh(c)
				if err != nil {
					return err
				}
				return f.tellFindings(e, findings, strict)
			}
			ctx, cancel := context.WithTimeout(c.Context(), callTimeout)
			defer cancel()
			findings, err := k.check(ctx, (*kubernetes.Checker).After)
			if err != nil {
				return err
			}
			more, err := f.checkMesh(c)
			if err != nil { // what was found of the cluster says why
				more = []*apipb.Finding{{Name: "mesh", Level: apipb.Finding_ERROR, Message: "the control plane cannot be asked for its own checks: " + err.Error(), Fix: "bring it back first; see what is said of it above"}}
			}
			return f.tellFindings(e, append(findings, more...), strict)
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().BoolVar(&before, "pre", false, "check whether the cluster that kubectl knows is fit for Heddle, before it is installed")
	c.Flags().BoolVar(&strict, "strict", false, "warnings count as errors for the exit code")
	return c
}

// checkMesh has the control plane run its own checks.
func (f *clientFlags) checkMesh(c *cobra.Command) (findings []*apipb.Finding, err error) {
	err = f.run(c, func(ctx context.Context, cl *client) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		reply, err := cl.mesh.Check(ctx, &apipb.CheckRequest{})
		findings = reply.GetFindings()
		return err
	})
	return findings, err
}

// tellFindings prints findings; the error says that some of them are errors.
func (f *clientFlags) tellFindings(e *env, findings []*apipb.Finding, strict bool) error {
	items, failed := findingItems(findings, strict)
	if f.output == "" {
		writeFindings(e, items)
	} else if err := writeList(e.stdout, f.output, items); err != nil {
		return err
	}
	if failed {
		return errTold
	}
	return nil
}

// check runs checks of the cluster, with the user's own rights.
func (k kubectl) check(ctx context.Context, checks func(*kubernetes.Checker, context.Context) []kubernetes.Finding) ([]*apipb.Finding, error) {
	config, err := (&installFlags{context: k.context}).rest()
	if err != nil {
		return nil, err
	}
	checker, err := kubernetes.NewChecker(config, kubernetes.Namespace)
	if err != nil {
		return nil, err
	}
	levels := map[kubernetes.Level]apipb.Finding_Level{kubernetes.OK: apipb.Finding_OK, kubernetes.Warning: apipb.Finding_WARNING, kubernetes.Error: apipb.Finding_ERROR}
	var out []*apipb.Finding
	for _, f := range checks(checker, ctx) {
		out = append(out, &apipb.Finding{Name: f.Check, Level: levels[f.Level], Message: f.Message, Fix: f.Fix})
	}
	return out, nil
}

// findingItem is a finding in JSON.
type findingItem struct {
	Check   string `json:"check"`
	Level   string `json:"level"` // ok, warning or error
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

func findingItems(findings []*apipb.Finding, strict bool) (items []findingItem, failed bool) {
	for _, f := range findings {
		items = append(items, findingItem{f.GetName(), strings.ToLower(f.GetLevel().String()), f.GetMessage(), f.GetFix()})
		failed = failed || f.GetLevel() == apipb.Finding_ERROR || strict && f.GetLevel() == apipb.Finding_WARNING
	}
	return items, failed
}

func writeFindings(e *env, items []findingItem) {
	count := map[string]int{}
	for _, i := range items {
		count[i.Level]++
		fmt.Fprintf(e.stdout, "%-7s  %s: %s\n", i.Level, i.Check, i.Message)
		if i.Fix != "" {
			fmt.Fprintf(e.stdout, "         fix: %s\n", i.Fix)
		}
	}
	fmt.Fprintf(e.stdout, "%d errors, %d warnings\n", count["error"], count["warning"])
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func checkCommand(e *env) *cobra.Command {
	var f clientFlags
	var strict bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the mesh, and say how to put right what is wrong",
		Long:  "Runs the self checks of the mesh. The exit code is 1 when one of them finds an error; warnings do not count unless --strict is given.",
		Example: `  heddle check
  heddle check -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return f.run(c, func(ctx context.Context, cl *client) error {
				ctx, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.mesh.Check(ctx, &apipb.CheckRequest{})
				if err != nil {
					return err
				}
				items, failed := findingItems(reply.GetFindings(), strict)
				if f.output != "" {
					if err := writeList(e.stdout, f.output, items); err != nil {
						return err
					}
				} else {
					writeFindings(e, items)
				}
				if failed {
					return errTold
				}
				return nil
			})
		},
	}
	f.add(c, "json", "yaml")
	c.Flags().BoolVar(&strict, "strict", false, "warnings count as errors for the exit code")
	return c
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

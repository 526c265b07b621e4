package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

func deleteCommand(e *env) *cobra.Command {
	var f applyFlags
	var ignoreMissing bool
	c := &cobra.Command{
		Use:   "delete KIND NAME... | -f FILE|DIR|-",
		Short: "Delete objects",
		Long:  "Deletes objects by name, or those that the documents of a file name. One that is not there is an error, and stops nothing.",
		Example: `  heddle delete httproute api-split
  heddle delete -f mesh/ --wait`,
		ValidArgsFunction: completeKindThenNames(&f.clientFlags),
		RunE: func(c *cobra.Command, given []string) error {
			refs, err := f.refs(e, given)
			if err != nil {
				return err
			}
			return f.run(c, func(ctx context.Context, cl *client) error {
				call, cancel := context.WithTimeout(ctx, callTimeout)
				defer cancel()
				reply, err := cl.objects.Delete(call, &apipb.DeleteRequest{Refs: refs, DryRun: f.dryRun})
				if err != nil {
					return err
				}
				if err := f.finish(ctx, e, cl, reply); err != nil || ignoreMissing {
					return err
				}
				for _, r := range reply.GetResults() {
					if r.GetAction() == apipb.Result_NOT_FOUND {
						return errTold
					}
				}
				return nil
			})
		},
	}
	f.add(c, "json", "yaml", "name")
	f.addWait(c)
	c.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "file, directory or - whose objects to delete; repeatable")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be deleted; change nothing")
	c.Flags().BoolVar(&ignoreMissing, "ignore-not-found", false, "succeed when an object is not there")
	return c
}

// refs are the objects that the command names.
func (f *applyFlags) refs(e *env, given []string) ([]*apipb.Ref, error) {
	if len(f.files) > 0 {
		if len(given) > 0 {
			return nil, usagef("say either -f or KIND NAME, not both")
		}
		sources, err := readSources(e, f.files)
		if err != nil {
			return nil, err
		}
		var out []*apipb.Ref
		for _, s := range sources {
			refs, err := refsOf(s, f.namespace)
			if err != nil {
				return nil, err
			}
			out = append(out, refs...)
		}
		return out, nil
	}
	if len(given) < 2 {
		return nil, usagef("nothing named; say KIND NAME, or -f FILE (kinds: %s)", strings.Join(plurals(), ", "))
	}
	kind, err := parseKind(given[0])
	if err != nil {
		return nil, err
	}
	var out []*apipb.Ref
	for _, name := range given[1:] {
		out = append(out, &apipb.Ref{Kind: string(kind), Namespace: f.namespace, Name: name})
	}
	return out, nil
}

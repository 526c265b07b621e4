package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/kubernetes"
)

const upgradeHelp = `Brings an installation to the version of this program. The values that it was installed with
stay; --set and --values change some. Before anything is changed the cluster and the
installation are checked, and the API server is asked about every object; an error of a
check ends it, and --force goes on in spite of it.

Sidecars stay what they are until their pods are restarted, and work with either control
plane. With --revision the new version is installed beside the old one, with its values,
and namespaces go over one by one:

  heddle upgrade --revision next
  kubectl label namespace NAME heddle.dev/rev=next --overwrite
  kubectl -n NAME rollout restart deployment
  heddle check                                # says which pods are of which version
  heddle uninstall --set revision=next        # to go back, after the labels
  heddle upgrade                              # when all is well; then remove labels and next`

func upgradeCommand(e *env) *cobra.Command {
	var f installFlags
	var revision string
	var force, dryRun bool
	c := &cobra.Command{
		Use:   "upgrade [flags]",
		Short: "Bring an installation on Kubernetes to this version, with the values it has",
		Long:  upgradeHelp,
		Example: `  heddle upgrade --dry-run
  heddle upgrade --set image.name=registry.example/heddle:2
  heddle upgrade --revision next --set image.name=registry.example/heddle:2`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			installer, err := f.installer(e)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), f.timeout, fmt.Errorf("not ready within %s (--timeout)", f.timeout))
			defer cancel()
			values, err := f.upgraded(ctx, e, installer, revision)
			if err != nil {
				return err
			}
			if err := f.preflight(ctx, e, force); err != nil {
				return err
			}
			fmt.Fprintln(e.stdout, "What the API server says that it would do:")
			if err := f.bring(ctx, installer, values, true); err != nil || dryRun {
				return err
			}
			fmt.Fprintln(e.stdout, "Now it does:")
			if err := f.bring(ctx, installer, values, false); err != nil {
				return err
			}
			return f.afterwards(ctx, e, values)
		},
	}
	f.add(c)
	c.Flags().StringVar(&revision, "revision", "", "install this version beside the old one, as the revision of that name")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would change; change nothing")
	c.Flags().BoolVar(&force, "force", false, "go on where a check finds an error")
	return c
}

// upgraded are the values to upgrade to: those of the revision as it is installed, or for a
// new one those of the default revision, with what the flags change.
func (f *installFlags) upgraded(ctx context.Context, e *env, installer *kubernetes.Installer, revision string) (kubernetes.Values, error) {
	values, err := kubernetes.DefaultValues()
	if err != nil {
		return nil, err
	}
	from := revision
	there, by := false, ""
	if revision != "" {
		if there, by, err = installer.Installed(ctx, f.namespace, revision); err != nil {
			return nil, err
		}
	}
	if !there {
		from = "default"
		if there, by, err = installer.Installed(ctx, f.namespace, from); err != nil {
			return nil, err
		}
	}
	switch {
	case !there:
		return nil, fmt.Errorf("namespace %s has no control plane to upgrade; heddle install makes one", f.namespace)
	case by == "Helm" && revision == "":
		return nil, fmt.Errorf("the control plane in namespace %s is Helm's; upgrade it by helm upgrade", f.namespace)
	}
	recorded, err := installer.Recorded(ctx, f.namespace, from, values)
	if err != nil {
		return nil, err
	}
	if !recorded {
		fmt.Fprintf(e.stderr, "heddle: the installation has no record of its values: those that are not given by --set or --values become the chart's\n")
	}
	before := fmt.Sprint(values["trustDomain"])
	if err := f.over(values); err != nil {
		return nil, err
	}
	if revision != "" {
		values["revision"] = revision
	}
	if now := fmt.Sprint(values["trustDomain"]); now != before && recorded {
		return nil, &exitError{exitUsage, fmt.Errorf("--set trustDomain=%s: the mesh is %s, and no identity in it would be known any more; a trust domain is for ever", now, before)}
	}
	return values, nil
}

// preflight checks the cluster and the installation.
func (f *installFlags) preflight(ctx context.Context, e *env, force bool) error {
	found, err := f.checked(ctx, func(c *kubernetes.Checker) []kubernetes.Finding { return append(c.Before(ctx), c.After(ctx)...) })
	if err != nil {
		return err
	}
	said, errors := map[string]bool{}, 0
	for _, x := range found {
		line := fmt.Sprintf("%-8s %s: %s", levelName(x.Level), x.Check, x.Message)
		if x.Level == kubernetes.OK || said[line] {
			continue
		}
		said[line] = true
		fmt.Fprintf(e.stdout, "%s\n         %s\n", line, x.Fix)
		if x.Level == kubernetes.Error {
			errors++
		}
	}
	if errors > 0 && !force {
		return fmt.Errorf("%d errors were found before the upgrade, and nothing was changed; mend them, or give --force", errors)
	}
	return nil
}

func (f *installFlags) checked(ctx context.Context, run func(*kubernetes.Checker) []kubernetes.Finding) ([]kubernetes.Finding, error) {
	config, err := f.rest()
	if err != nil {
		return nil, err
	}
	checker, err := kubernetes.NewChecker(config, f.namespace)
	if err != nil {
		return nil, err
	}
	return run(checker), nil
}

func levelName(l kubernetes.Level) string {
	return [...]string{kubernetes.OK: "ok", kubernetes.Warning: "warning", kubernetes.Error: "error"}[l]
}

// afterwards says what is left to do.
func (f *installFlags) afterwards(ctx context.Context, e *env, values kubernetes.Values) error {
	if name := fmt.Sprint(values["revision"]); name != "default" {
		fmt.Fprintf(e.stdout, "\nRevision %s is ready. Namespaces go over to it by\n  kubectl label namespace NAME heddle.dev/rev=%[1]s --overwrite\nand a restart of what runs there.\n", name)
		return nil
	}
	found, err := f.checked(ctx, func(c *kubernetes.Checker) []kubernetes.Finding { return c.Versions(ctx) })
	if err != nil {
		return err
	}
	for _, x := range found {
		if x.Level != kubernetes.OK {
			fmt.Fprintf(e.stdout, "\n%s.\nTheir turn is yours to choose: %s.\n", strings.TrimSuffix(x.Message, "."), x.Fix)
		}
	}
	return nil
}

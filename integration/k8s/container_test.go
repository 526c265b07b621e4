//go:build k8s

package k8s

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// container is one of a pod, as its node knows it. It is reached without the API server.
type container struct {
	node int
	id   string
}

// containerOf finds a container of a pod.
func containerOf(t *testing.T, ns, pod, name string) container {
	t.Helper()
	pod = strings.TrimPrefix(pod, "pod/")
	node := kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
	var c container
	if _, err := fmt.Sscanf(node, "n%d", &c.node); err != nil {
		t.Fatalf("node %q of %s", node, pod)
	}
	for _, kind := range []string{"initContainerStatuses", "containerStatuses"} {
		id := kubectl(t, "-n", ns, "get", "pod", pod, "-o", fmt.Sprintf(`jsonpath={.status.%s[?(@.name==%q)].containerID}`, kind, name))
		if id != "" {
			c.id = strings.TrimPrefix(id, "containerd://")
		}
	}
	if c.id == "" {
		t.Fatalf("pod %s/%s has no container %s", ns, pod, name)
	}
	return c
}

// ctr makes a command of containerd's client on the container's node.
func (at container) ctr(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := c.OnNode(ctx, at.node, append([]string{"ctr", "--namespace=k8s.io", "tasks"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

var execs int // each has a name of its own

// exec makes a command that runs in the container.
func (at container) exec(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	execs++
	return at.ctr(ctx, t, append([]string{"exec", "--exec-id=test-" + strconv.Itoa(execs), at.id}, args...)...)
}

// get asks one URL from the container.
func (at container) get(t *testing.T, url string) answer {
	t.Helper()
	out, err := at.exec(t.Context(), t, "/app", "get", url).CombinedOutput()
	answers := answersIn(string(out))
	if err != nil || len(answers) != 1 {
		t.Fatalf("get %s: %v: %s", url, err, out)
	}
	return answers[0]
}

// startLoad is startLoad by way of the node.
func (at container) startLoad(t *testing.T, url string, rate int) *load {
	t.Helper()
	return begin(t, at.exec(context.WithoutCancel(t.Context()), t, "/app", "load", "-url", url, "-rate", strconv.Itoa(rate)))
}

func killContainer(t *testing.T, at container) {
	t.Helper()
	if out, err := at.ctr(t.Context(), t, "kill", "--signal=SIGKILL", "--all", at.id).CombinedOutput(); err != nil {
		t.Fatalf("kill container %s: %v: %s", at.id, err, out)
	}
}

// onNode runs a command on a node.
func onNode(t *testing.T, i int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience) // in cleanups too
	defer cancel()
	cmd, err := c.OnNode(ctx, i, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v on node %d: %v: %s", args, i, err, out)
	}
	return strings.TrimSpace(string(out))
}

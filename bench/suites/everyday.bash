# Checks of everyday programs, for bench/suites/everyday.py: `# == NAME` begins one, `(quick)` is in the quick selection.
# Each runs in Bash, stops at the first command that fails, and stands in an empty directory $M on what is tested;
# $L is an empty directory on the local disk. What stands before the first check is run before each.

tree() {
    mkdir -p "$1/a/b/c" "$1/empty" "$1/sp ace"
    printf 'hello\n' >"$1/a/file"; : >"$1/a/nothing"; head -c 300000 /dev/urandom >"$1/a/b/random"
    truncate -s 1M "$1/a/sparse"; printf 'end' >>"$1/a/sparse"
    printf 'x' >"$1/sp ace/new"$'\n'"line"; printf 'y' >"$1/sp ace/"$'\xff\xfe'
    ln -s ../file "$1/a/b/link"; ln -s /nowhere "$1/a/dangling"; ln "$1/a/file" "$1/a/b/hard"
    chmod 4751 "$1/a/b/random"; chmod 2770 "$1/empty"; chown 12:34 "$1/a/nothing"; mkfifo "$1/a/pipe"
    touch -d '1999-12-31 23:59:59.123456789' "$1/a/file"; touch -h -d '2040-02-03 04:05:06' "$1/a/dangling"
    setfattr -n user.colour -v blue "$1/a/file"
    for i in $(seq 60); do echo "line $i" >"$1/a/b/c/file$i"; done
}
same() { rsync -aHXnic --delete "$1/" "$2/" >"$L/changes"; cat "$L/changes"; test ! -s "$L/changes"; }
fails() { if "$@"; then echo "should fail: $*"; exit 1; fi; }

git() { command git -c user.name=me -c user.email=me@here -c init.defaultBranch=main -c gc.auto=0 "$@"; }
repository() { git init -q "$1"; tree "$1/files"; rm "$1/files/a/pipe"; git -C "$1" add -A; git -C "$1" commit -qm one; }

rows() { sqlite3 -cmd '.timeout 60000' "$1" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2)
    INSERT INTO t (v) SELECT hex(randomblob(100)) FROM n;"; }
made() { sqlite3 db "PRAGMA journal_mode=$1; CREATE TABLE t (i INTEGER PRIMARY KEY, v);" >/dev/null; }
sound() { test "$(sqlite3 "$1" 'PRAGMA integrity_check')" = ok; }
journal() {
    made "$1"
    for i in $(seq 10); do rows db 200; done
    sqlite3 db 'DELETE FROM t WHERE i % 3 = 0; VACUUM'
    test "$(sqlite3 db 'SELECT count(*) FROM t')" = 1334
    sound db
    cp db $L/db
    sound $L/db
}
two_writers() {
    made "$1"
    w() { for i in $(seq 15); do rows db 20; done; }
    w & one=$!
    w & two=$!
    wait $one
    wait $two
    test "$(sqlite3 db 'SELECT count(*) FROM t')" = 600
    sound db
}
killed() {
    made "$1"
    for round in 1 2 3 4; do
        while :; do
            echo 'INSERT INTO t (v) SELECT hex(randomblob(3000)) FROM (VALUES (1), (2), (3));'
            echo 'SELECT max(i) FROM t;'
        done 2>/dev/null | sqlite3 db >$L/out & pid=$!
        until test $(wc -l <$L/out) -gt $((round * 5)); do kill -0 $pid; done
        kill -9 $pid
        wait $pid || true
        sound db
        # The last line may be cut; what the one before says was committed.
        test $(sqlite3 db 'SELECT max(i) FROM t') -ge $(head -n -1 $L/out | tail -1)
    done
}

# == cp -a (quick)
tree $L/t
cp -a $L/t $M/t
same $L/t $M/t
diff -r --no-dereference -x pipe $L/t $M/t

# == cp -a back
tree $M/t
cp -a $M/t $L/t
same $M/t $L/t

# == cp on the mount
tree t
cp -a t u
same t u

# == cp --sparse
truncate -s 5M f
cp --sparse=always f g
cmp f g
test $(stat -c %b g) -le $(stat -c %b f)

# == cp --reflink=auto
head -c 1M /dev/urandom >f
cp --reflink=auto f g
cmp f g
fails cp --reflink=always f h

# == cp --backup and -u
echo 1 >f
echo 2 >g
cp --backup=numbered g f
cmp g f
test "$(cat f.~1~)" = 1
cp -u f g

# == mv (quick)
tree t
mv t u
test ! -e t
tree $L/t
mv u $L/u
test ! -e u
diff -r --no-dereference -x pipe -x random -x "sp ace" $L/t $L/u

# == mv to the mount
tree $L/t
cp -a $L/t $L/u
mv $L/t t
same $L/u t

# == mv over
echo 1 >f
echo 2 >g
mv -f f g
test "$(cat g)" = 1
mkdir d
fails mv -T g d

# == rsync -aHX (quick)
tree $L/t
rsync -aHX $L/t/ x
test -z "$(rsync -aHXnic $L/t/ x)"

# == rsync -aHAX (quick)
mkdir $L/t
echo x >$L/t/f
setfacl -m u:1:rw $L/t/f
setfattr -n user.a -v b $L/t/f
ln $L/t/f $L/t/g
rsync -aHAX $L/t/ x
test -z "$(rsync -aHAXnic --delete $L/t/ x)"
getfacl -cn x/f | grep -qx user:1:rw-
test x/f -ef x/g

# == rsync --inplace
tree $L/t
rsync -aHX $L/t/ x
printf z | dd of=$L/t/a/b/random bs=1 seek=1000 conv=notrunc status=none
rsync -aHXI --inplace --no-whole-file $L/t/ x
same $L/t x

# == rsync --delete
tree $L/t
rsync -aHX $L/t/ x
rm -r $L/t/a/b/c
mkdir $L/t/a/b/c
rsync -aHX --delete $L/t/ x
same $L/t x

# == rsync --link-dest
tree $L/t
rsync -aHX $L/t/ x
rsync -aHX --link-dest=$M/x $L/t/ y
same x y
test x/a/b/random -ef y/a/b/random

# == rsync -S
truncate -s 3M $L/f
rsync -S $L/f f
cmp $L/f f

# == tar (quick)
tree $L/t
tar -C $L/t --xattrs -cf $L/t.tar .
mkdir x
tar -C x --xattrs --xattrs-include="*" -xpf $L/t.tar
tar -C x -df $L/t.tar
same $L/t x

# == tar of the mount
tree t
tar -cf $L/t.tar t
tar -df $L/t.tar
test $(tar -tf $L/t.tar | wc -l) = $(find t -printf x | wc -c)

# == tar -z, incremental
tree t
tar -g $L/snap -czf 1.tgz t
echo new >t/new
tar -g $L/snap -czf 2.tgz t
mkdir x
tar -C x -xzf 1.tgz
tar -C x -g /dev/null -xzf 2.tgz
cmp t/new x/t/new

# == cpio
tree t
find t -depth -print0 | cpio -0 -o -H newc --quiet >t.cpio
mkdir x
(cd x
cpio -id --quiet <../t.cpio)
diff -r --no-dereference -x pipe t x/t

# == zip (quick)
tree t
rm t/a/pipe
zip -qry t.zip t -x "*sp ace*"
unzip -tq t.zip
mkdir x
unzip -q t.zip -d x
diff -r --no-dereference -x "sp ace" t x/t

# == gzip bzip2 xz
for p in gzip bzip2 xz; do head -c 500000 /dev/urandom >f
cp f $L/f
$p f
$p -d f.*
cmp f $L/f
rm f
done

# == install
echo x >f
install -D -m 4755 -o 1 -g 2 f d/e/g
test "$(stat -c %a:%u:%g d/e/g)" = 4755:1:2
install -d -m 1777 s
test $(stat -c %a s) = 1777

# == dd
dd if=/dev/urandom of=f bs=64k count=20 conv=fsync status=none
dd if=f of=g bs=4k iflag=direct oflag=direct status=none
cmp f g
dd if=f of=g bs=1 count=3 seek=70000 conv=notrunc status=none
test $(stat -c %s g) = 1310720

# == split and cat
head -c 1500000 /dev/urandom >f
split -b 100000 f part
cat part* | cmp f

# == sha256sum
tree t
(cd t
find . -type f -print0 | xargs -0 sha256sum) >sums
cp -a t u
(cd u
sha256sum -c --quiet ../sums)

# == rm -r
mkdir -p d/{1..20}/{1..20}
touch d/{1..20}/{1..20}/f
rm -r d
test ! -e d

# == find (quick)
tree t
test "$(find t -type f -printf x | wc -c)" = 67
find t -name "file*" -delete
test "$(find t -type f -name "file*" | wc -l)" = 0

# == ls -l of thousands
seq 3000 | xargs touch
test $(ls -f | wc -l) = 3002
test $(ls -l | wc -l) = 3001
seq 3000 | xargs rm
test -z "$(ls)"

# == du and df
head -c 1M /dev/urandom >f
truncate -s 1G s
test $(du -k f | cut -f1) = 1024
test $(du -k --apparent-size s | cut -f1) = 1048576
test $(du -k s | cut -f1) -lt 1000
df . >/dev/null
df -i . >/dev/null

# == ln (quick)
echo x >f
ln f g
test f -ef g
ln -s f s
ln -sfn g s
test "$(readlink s)" = g
ln -sr f d
realpath -e d
test $(stat -c %h f) = 2

# == touch and stat
touch -d "2001-02-03 04:05:06.789" f
test "$(stat -c %y f | cut -c1-23)" = "2001-02-03 04:05:06.789"
touch -r f g
test "$(stat -c %Y f)" = "$(stat -c %Y g)"
touch -c h
test ! -e h

# == chmod -R and chown -R
tree t
chmod -R u+rwX,go-w t
chown -hR 7:8 t
test -z "$(find t ! -uid 7)"
test -z "$(find t ! -type l -perm /022)"

# == mktemp
d=$(mktemp -d -p .)
f=$(mktemp -p $d)
test "$(stat -c %a $d $f | tr "\n" " ")" = "700 600 "

# == mkfifo
mkfifo p
(cat p >out) & echo through >p
wait
test "$(cat out)" = through

# == truncate (quick)
printf abc >f
truncate -s 5 f
truncate -s -2 f
truncate -s +1 f
printf "abc\0" | cmp - f
truncate -s 8T f
test $(stat -c %s f) = 8796093022208
rm f

# == shred
head -c 100000 /dev/urandom >f
shred -u -n 2 -z f
test -z "$(ls)"

# == sed -i and patch
seq 100 >f
cp f g
sed -i s/50/fifty/ f
diff -u g f >p || true
patch -s g p
cmp f g

# == sort -o
seq 20000 | shuf >f
sort -n -o f f -T .
seq 20000 | cmp - f

# == xattrs (quick)
touch f
setfattr -n user.a -v 1 f
setfattr -n user.b -v "$(printf %2000s)" f
test "$(getfattr --only-values -n user.a f)" = 1
setfattr -x user.a f
fails getfattr -n user.a f
cp -a f g
test "$(getfattr -n user.b --only-values g | wc -c)" = 2000

# == ACLs
touch f
setfacl -m u:1234:rw f
getfacl -cn f | grep -qx "user:1234:rw-"
test $(stat -c %A f | cut -c5-6) = rw
setfacl -b f
mkdir d
setfacl -d -m g:77:rx d
touch d/f
getfacl -cn d/f | grep -q group:77
cp -a d e
getfacl -cn e | grep -qx default:group:77:r-x

# == inotifywait
inotifywait -q -t 20 -e create --format %f . >$L/seen 2>$L/errors & pid=$!
until grep -q inotify /proc/$pid/fdinfo/* 2>/dev/null; do kill -0 $pid; done
touch made
wait $!
test "$(cat $L/seen)" = made

# == flock (quick)
touch f
exec 9>f
flock -n 9
fails flock -n f true
exec 9>&-
flock -n f true

# == two flocks
echo 0 >n
work() { for i in $(seq 40); do flock lock bash -c "echo \$((\$(cat n) + 1)) >n"
done
}
work & work & wait
test $(cat n) = 80

# == tail -f
touch f
tail -n +1 -f f >$L/out & pid=$!
for i in 1 2 3; do echo $i >>f
done
until test "$(wc -l <$L/out)" = 3; do kill -0 $pid
done
kill $pid

# == two appenders (quick)
w() { for i in $(seq 300); do echo "$1 $i" >>f
done
}
w a & w b & wait
test $(wc -l <f) = 600
test $(sort -u f | wc -l) = 600

# == deep tree
d=.
for i in $(seq 60); do d=$d/directory$i
done
mkdir -p $d
echo x >$d/f
test "$(find . -name f | wc -l)" = 1
rm -r directory1
test -z "$(ls)"

# == gcc (quick)
printf "#include <stdio.h>\nint main(void){puts(\"built\");return 0;}" >m.c
gcc -o m m.c
test "$(./m)" = built

# == ar and shared libraries
echo "int f(void){return 3;}" >f.c
gcc -fPIC -shared -o libf.so f.c
gcc -c f.c
ar rcs libf.a f.o
echo "int f(void);int main(void){return f();}" >m.c
gcc m.c -L. -lf -Wl,-rpath,. -o m
c=0
./m || c=$?
test $c = 3

# == make (quick)
printf "all: o\no: i\n\tcp i o; echo made >>log\n" >Makefile
echo 1 >i
make -s
make -s
test $(wc -l <log) = 1
touch -d "+2 seconds" i
make -s
test $(wc -l <log) = 2

# == make -j
for i in $(seq 20); do echo "int f$i(void){return $i;}" >f$i.c
done
printf "all: \$(patsubst %%.c,%%.o,\$(wildcard *.c))\n" >Makefile
make -s -j4
test $(ls *.o | wc -l) = 20

# == python
mkdir p
echo "x = 1" >p/__init__.py
env -u PYTHONDONTWRITEBYTECODE -u PYTHONPYCACHEPREFIX /usr/bin/python3 -c "import p
print(p.x)"
test -e p/__pycache__
/usr/bin/python3 -m compileall -q p

# == a venv
/usr/bin/python3 -m venv --without-pip v
v/bin/python -c "import sys
assert sys.prefix.endswith('v')"

# == shell scripts
printf "#!/bin/bash\necho run \$1" >s
fails ./s
chmod +x s
test "$(./s now)" = "run now"

# == gdbm
seq 500 | awk '{print "store k"$1" v"$1}' | gdbmtool -n db >/dev/null
test "$(gdbmtool db count)" = "There are 500 items in the database."
test "$(gdbmtool db fetch k77)" = v77

# == git commit (quick)
repository r
test -z "$(git -C r status --porcelain)"
git -C r fsck --full --strict

# == git clone (quick)
repository $L/r
git clone -q $L/r c
git -C c fsck --full
git clone -q --no-hardlinks c d
diff -r --no-dereference c/files d/files

# == git clone hardlinks
repository r
git clone -ql r c
git -C c fsck --full

# == git gc (quick)
repository r
for i in $(seq 15); do echo $i >>r/f
git -C r add -A
git -C r commit -qm $i
done
git -C r gc -q --aggressive --prune=now
git -C r fsck --full
test $(git -C r rev-list --count HEAD) = 16

# == git branches
repository r
cd r
git checkout -qb two
echo 2 >files/two
git add -A
git commit -qm two
git checkout -q main
test ! -e files/two
git merge -q --no-ff --no-edit two
test -e files/two
git stash -q 2>/dev/null || true
git fsck --full

# == git worktree and push
repository r
git -C r worktree add -q ../w -b w
echo w >w/w
git -C w add -A
git -C w commit -qm w
git init -q --bare b
git -C w push -q ../b w
git -C b fsck --full

# == git after rm
repository r
rm -r r/files/a
git -C r status --porcelain | grep -q "^ D"
git -C r checkout -q -- .
test -z "$(git -C r status --porcelain)"

# == sqlite delete (quick)
journal delete

# == sqlite truncate
journal truncate

# == sqlite persist
journal persist

# == sqlite memory
journal memory

# == sqlite wal (quick)
journal wal

# == two sqlite writers, delete
two_writers delete

# == two sqlite writers, wal (quick)
two_writers wal

# == sqlite writer killed, delete
killed delete

# == sqlite writer killed, wal
killed wal

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a descriptor of guest memory has to be, and whether its pages are there.
 *
 * The kernel's IOMMU_IOAS_MAP_FILE looks at neither seals nor open mode: with a descriptor that its
 * sender may only read, a device would write through us. And it allocates what is not there, on our
 * memory cgroup, and pins what was allocated and never written, with whatever stood there before.
 * So all of that is checked here, by file system type and not by name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "broker/memory_file.h"

/* linux/magic.h; the last three are not in every system's copy of it. */
#define MAGIC_TMPFS       0x01021994
#define MAGIC_HUGETLBFS   0x958458f6
#define MAGIC_DMA_BUF     0x444d4142
#define MAGIC_SECRETMEM   0x5345434d
#define MAGIC_GUEST_MEMFD 0x474d454d

#define PAGE_BYTES  4096
#define BLOCK_BYTES 512 /* unit of st_blocks */

static const char *mode_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "an ordinary file";
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFLNK:
		return "a symbolic link";
	default:
		return "no file";
	}
}

/* Objects without a file system of their own tell what they are by their link only. */
static bool link_names(int fd, const char *name)
{
	char path[64], target[128];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return false;
	target[length] = '\0';
	return strstr(target, name) != NULL;
}

static const char *file_kind(int fd, const struct stat *st, unsigned long magic)
{
	if (magic == MAGIC_DMA_BUF)
		return "a dma-buf";
	if (magic == MAGIC_SECRETMEM)
		return "secret memory";
	if (magic == MAGIC_GUEST_MEMFD || link_names(fd, "kvm-gmem") ||
	    link_names(fd, "guest_memfd"))
		return "a guest_memfd";
	return mode_name(st->st_mode);
}

static int file_check_kind(int fd, struct stat *ret, bool *ret_huge, struct refusal *refusal)
{
	struct statfs fs;
	unsigned long magic;

	if (fstat(fd, ret) || fstatfs(fd, &fs))
		return refuse_field(refusal, "descriptor", "not usable: %s", strerror(errno));
	/* f_type is signed on some machines: the upper half must not decide. */
	magic = (unsigned long)fs.f_type & 0xffffffff;
	if (!S_ISREG(ret->st_mode) || (magic != MAGIC_TMPFS && magic != MAGIC_HUGETLBFS))
		return refuse_field(refusal, "descriptor",
				    "is %s (file system type %#lx): guest memory is a memfd or a "
				    "file of tmpfs or hugetlbfs",
				    file_kind(fd, ret, magic), magic);
	*ret_huge = magic == MAGIC_HUGETLBFS;
	return 0;
}

static int file_check_mode(int fd, bool writable, struct refusal *refusal)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return refuse_field(refusal, "descriptor", "not usable: %s", strerror(errno));
	if (flags & O_PATH)
		return refuse_field(refusal, "descriptor",
				    "was opened with O_PATH, which gives no access to the file");
	if ((flags & O_ACCMODE) == O_WRONLY)
		return refuse_field(refusal, "descriptor", "is open for writing only");
	if (writable && (flags & O_ACCMODE) != O_RDWR)
		return refuse_field(refusal, "writable", "the descriptor is open for reading only");
	return 0;
}

static int file_check_seals(int fd, bool writable, enum broker_seals policy,
			    struct refusal *refusal)
{
	/* Files that cannot be sealed answer EINVAL, or F_SEAL_SEAL. */
	int seals = fcntl(fd, F_GET_SEALS);
	bool sealable = seals >= 0 && !(seals & F_SEAL_SEAL);

	if (seals < 0)
		seals = 0;
	if (writable && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
		return refuse_field(refusal, "writable", "the file is sealed against writing");
	if (policy == BROKER_SEALS_OFF || (seals & F_SEAL_SHRINK))
		return 0;
	if (policy == BROKER_SEALS_PERMISSIVE && !sealable)
		return 0;
	return refuse_field(refusal, "descriptor",
			    "%s, and setting RequireSeals= asks for F_SEAL_SHRINK",
			    sealable ? "the file is not sealed against shrinking"
				     : "the file cannot be sealed against shrinking");
}

int file_check(int borrow_fd, bool writable, enum broker_seals seals, struct file_facts *ret,
	       struct refusal *refusal)
{
	struct stat st;
	uint64_t page_bytes;
	bool huge = false;

	if (file_check_kind(borrow_fd, &st, &huge, refusal))
		return REFUSED;
	if (file_check_mode(borrow_fd, writable, refusal))
		return REFUSED;
	if (file_check_seals(borrow_fd, writable, seals, refusal))
		return REFUSED;
	page_bytes = huge ? (uint64_t)st.st_blksize : PAGE_BYTES;
	if (st.st_size <= 0 || (uint64_t)st.st_size % page_bytes)
		return refuse_field(
			refusal, "descriptor",
			"the file has %lld bytes: not a multiple, above 0, of its pages "
			"of %llu bytes",
			(long long)st.st_size, (unsigned long long)page_bytes);
	*ret = (struct file_facts){
		.length_bytes = (uint64_t)st.st_size,
		.page_bytes = page_bytes,
		.huge = huge,
	};
	return 0;
}

/* Whether there are blocks enough for the whole file: then nothing is allocated by touching it. */
static bool file_all_allocated(const struct memory_file *file)
{
	struct stat st;

	if (fstat(file->fd, &st) || st.st_blocks < 0)
		return false;
	return (uint64_t)st.st_blocks >= file->length_bytes / BLOCK_BYTES;
}

/* shmem: a page that was never written is a hole, also if it was allocated. The position is shared
 * with the file's sender, so it is put back. */
static void file_look_at(const struct memory_file *file, uint64_t offset, struct file_look *ret)
{
	off_t before = lseek(file->fd, 0, SEEK_CUR);
	off_t hole = lseek(file->fd, (off_t)offset, SEEK_HOLE);

	if (before >= 0)
		lseek(file->fd, before, SEEK_SET);
	*ret = (struct file_look){
		.file = file,
		.first = offset,
		.hole = hole < 0 ? offset : (uint64_t)hole,
	};
}

static bool file_has_hole(const struct memory_file *file, uint64_t offset, uint64_t length,
			  struct file_look *look)
{
	if (look->file != file || offset < look->first || offset >= look->hole)
		file_look_at(file, offset, look);
	return look->hole < offset + length;
}

/* hugetlbfs answers SEEK_HOLE as if it were full; its pages are cleared when they are allocated. */
static bool file_range_populated(const struct memory_file *file, uint64_t offset, uint64_t length,
				 struct file_look *look)
{
	return file->huge ? file_all_allocated(file) : !file_has_hole(file, offset, length, look);
}

int file_check_populated(const struct memory_file *file, uint64_t offset, uint64_t length,
			 const char *field, struct file_look *look, struct refusal *refusal)
{
	if (file_range_populated(file, offset, length, look))
		return 0;
	refuse(refusal, REFUSAL_PRECONDITION, "UNPOPULATED_MEMORY",
	       "%s: not all of the %llu bytes from offset %#llx have been populated (prealloc, or "
	       "write to them)",
	       field, (unsigned long long)length, (unsigned long long)offset);
	snprintf(refusal->field, sizeof(refusal->field), "%s", field);
	return REFUSED;
}

/* A read fault clears a page of shmem that was allocated and never written, and allocates what is
 * not there; it needs no write access. */
static int file_touch(const struct memory_file *file, uint64_t offset, uint64_t length)
{
	if (!madvise((void *)(uintptr_t)(file->host + offset), length, MADV_POPULATE_READ))
		return 0;
	return errno;
}

int file_populate(const struct memory_file *file, uint64_t offset, uint64_t length,
		  enum broker_unpopulated policy, const char *field, struct file_look *look,
		  struct refusal *refusal)
{
	int error;

	if (file_range_populated(file, offset, length, look))
		return 0;
	/* All of it is allocated, on its owner's account: it only has to be cleared. */
	if (policy == BROKER_UNPOPULATED_REJECT && !file_all_allocated(file))
		return file_check_populated(file, offset, length, field, look, refusal);
	error = file_touch(file, offset, length);
	*look = (struct file_look){0};
	if (error == ENOMEM || error == ENOSPC || error == EFAULT)
		return refuse(refusal, REFUSAL_HOST_RESOURCES, "HOST_RESOURCES",
			      "%s: no memory to populate it: %s", field, strerror(error));
	return file_check_populated(file, offset, length, field, look, refusal);
}

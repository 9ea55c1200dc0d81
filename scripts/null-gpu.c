/*
 * A Vulkan driver without a GPU: Mesa's RADV, which with RADV_FORCE_FAMILY compiles for any AMD GPU, and substitutes for the functions that need
 * hardware. The real compiler compiles pipelines, and its statistics are written to the file NULL_GPU_STATISTICS, one line of JSON per pipeline. Commands,
 * submissions and memory only pretend to exist. bench/shaders.ts builds and uses it.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

typedef PFN_vkVoidFunction (*Lookup)(VkInstance, const char *);
static Lookup instance_function, physical_function;
static PFN_vkGetDeviceProcAddr device_function;
static VkInstance instance;

/* For whatever only has to succeed. */
static VkResult succeed(void) { return VK_SUCCESS; }

/* ---- Pipelines: compiled, and counted. */

static void report(VkDevice device, VkPipeline pipeline) {
  const char *path = getenv("NULL_GPU_STATISTICS");
  PFN_vkGetPipelineExecutableStatisticsKHR ask =
      (PFN_vkGetPipelineExecutableStatisticsKHR)device_function(device, "vkGetPipelineExecutableStatisticsKHR");
  if (path == NULL || ask == NULL) return;
  VkPipelineExecutableInfoKHR info = {VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, NULL, pipeline, 0};
  VkPipelineExecutableStatisticKHR found[64];
  uint32_t count = 64;
  memset(found, 0, sizeof found);
  for (uint32_t i = 0; i < count; i++) found[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
  if (ask(device, &info, &count, found) < 0) return;
  FILE *out = fopen(path, "a");
  if (out == NULL) return;
  for (uint32_t i = 0; i < count; i++)
    fprintf(out, "%s\"%s\":%lld", i == 0 ? "{" : ",", found[i].name, (long long)found[i].value.i64);
  fprintf(out, "}\n");
  fclose(out);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_pipelines(VkDevice device, VkPipelineCache cache, uint32_t count,
                                                       const VkComputePipelineCreateInfo *infos,
                                                       const VkAllocationCallbacks *allocator, VkPipeline *pipelines) {
  PFN_vkCreateComputePipelines create =
      (PFN_vkCreateComputePipelines)device_function(device, "vkCreateComputePipelines");
  for (uint32_t i = 0; i < count; i++) {
    VkComputePipelineCreateInfo info = infos[i];
    info.flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    VkResult result = create(device, cache, 1, &info, allocator, &pipelines[i]);
    if (result != VK_SUCCESS) return result;
    report(device, pipelines[i]);
  }
  return VK_SUCCESS;
}

/* ---- Memory: ordinary memory of the process, of one type; what is large is not there at all, since nothing runs that would use it. */

#define MOST (1u << 26)

static VKAPI_ATTR VkResult VKAPI_CALL allocate_memory(VkDevice device, const VkMemoryAllocateInfo *info,
                                                      const VkAllocationCallbacks *allocator, VkDeviceMemory *memory) {
  *memory = (VkDeviceMemory)(uintptr_t)calloc(1, info->allocationSize < MOST ? info->allocationSize : MOST);
  return *memory == 0 ? VK_ERROR_OUT_OF_DEVICE_MEMORY : VK_SUCCESS;
}
static VKAPI_ATTR void VKAPI_CALL free_memory(VkDevice device, VkDeviceMemory memory, const VkAllocationCallbacks *allocator) {
  free((void *)(uintptr_t)memory);
}
static VKAPI_ATTR VkResult VKAPI_CALL map_memory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset,
                                                 VkDeviceSize size, VkMemoryMapFlags flags, void **data) {
  *data = (char *)(uintptr_t)memory + offset;
  return VK_SUCCESS;
}
static VKAPI_ATTR void VKAPI_CALL buffer_requirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *needs) {
  ((PFN_vkGetBufferMemoryRequirements)device_function(device, "vkGetBufferMemoryRequirements"))(device, buffer, needs);
  needs->memoryTypeBits = 1;
}
static VKAPI_ATTR void VKAPI_CALL buffer_requirements2(VkDevice device, const VkBufferMemoryRequirementsInfo2 *info,
                                                       VkMemoryRequirements2 *needs) {
  ((PFN_vkGetBufferMemoryRequirements2)device_function(device, "vkGetBufferMemoryRequirements2"))(device, info, needs);
  needs->memoryRequirements.memoryTypeBits = 1;
}
static void one_type(VkPhysicalDeviceMemoryProperties *memory) {
  memory->memoryTypeCount = memory->memoryHeapCount = 1;
  memory->memoryTypes[0] = (VkMemoryType){
      VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
          VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
      0};
  memory->memoryHeaps[0] = (VkMemoryHeap){1ull << 36, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
}
static VKAPI_ATTR void VKAPI_CALL memory_properties(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties *memory) {
  memset(memory, 0, sizeof *memory);
  one_type(memory);
}
static VKAPI_ATTR void VKAPI_CALL memory_properties2(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2 *memory) {
  memset(&memory->memoryProperties, 0, sizeof memory->memoryProperties);
  one_type(&memory->memoryProperties);
}

/* ---- Handles of things that nothing looks into. */

static uint64_t next_handle = 1;

static VKAPI_ATTR VkResult VKAPI_CALL create_any(VkDevice device, const void *info, const void *allocator, uint64_t *out) {
  *out = next_handle++;
  return VK_SUCCESS;
}
static VKAPI_ATTR VkResult VKAPI_CALL allocate_sets(VkDevice device, const VkDescriptorSetAllocateInfo *info, VkDescriptorSet *out) {
  for (uint32_t i = 0; i < info->descriptorSetCount; i++) out[i] = (VkDescriptorSet)(uintptr_t)next_handle++;
  return VK_SUCCESS;
}

/* ---- Which functions are ours. */

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_function(VkDevice device, const char *name) {
  static const struct {
    const char *name;
    PFN_vkVoidFunction function;
  } ours[] = {
      {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)get_device_function},
      {"vkCreateComputePipelines", (PFN_vkVoidFunction)create_pipelines},
      {"vkAllocateMemory", (PFN_vkVoidFunction)allocate_memory},
      {"vkFreeMemory", (PFN_vkVoidFunction)free_memory},
      {"vkMapMemory", (PFN_vkVoidFunction)map_memory},
      {"vkGetBufferMemoryRequirements", (PFN_vkVoidFunction)buffer_requirements},
      {"vkGetBufferMemoryRequirements2", (PFN_vkVoidFunction)buffer_requirements2},
      {"vkGetBufferMemoryRequirements2KHR", (PFN_vkVoidFunction)buffer_requirements2},
      {"vkCreateFence", (PFN_vkVoidFunction)create_any},
      {"vkCreateDescriptorPool", (PFN_vkVoidFunction)create_any},
      {"vkAllocateDescriptorSets", (PFN_vkVoidFunction)allocate_sets},
  };
  /* By how they begin: they only have to succeed. */
  static const char *const empty[] = {
      "vkCmd", "vkBeginCommandBuffer", "vkEndCommandBuffer", "vkResetCommandPool", "vkQueueSubmit", "vkQueueWaitIdle",
      "vkDeviceWaitIdle", "vkWaitForFences", "vkGetFenceStatus", "vkResetFences", "vkDestroyFence", "vkBindBufferMemory",
      "vkUnmapMemory", "vkFlushMappedMemoryRanges", "vkInvalidateMappedMemoryRanges", "vkUpdateDescriptorSets",
      "vkDestroyDescriptorPool", "vkResetDescriptorPool", "vkFreeDescriptorSets", "vkDestroyCommandPool", "vkFreeCommandBuffers",
  };
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (strcmp(name, ours[i].name) == 0) return ours[i].function;
  for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
    if (strncmp(name, empty[i], strlen(empty[i])) == 0) return (PFN_vkVoidFunction)succeed;
  return device_function(device, name);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator, VkInstance *out) {
  VkResult result = ((PFN_vkCreateInstance)instance_function(NULL, "vkCreateInstance"))(info, allocator, out);
  instance = *out;
  return result;
}

/* With the extension that has the compiler's statistics. */
static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator, VkDevice *out) {
  uint32_t count = info->enabledExtensionCount;
  const char **names = malloc((count + 1) * sizeof *names);
  if (count > 0) memcpy(names, info->ppEnabledExtensionNames, count * sizeof *names);
  names[count] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
  VkDeviceCreateInfo more = *info;
  more.enabledExtensionCount = count + 1;
  more.ppEnabledExtensionNames = names;
  VkResult result = ((PFN_vkCreateDevice)instance_function(instance, "vkCreateDevice"))(physical, &more, allocator, out);
  free(names);
  return result;
}

/* ---- What Vulkan's loader asks a driver for. */

static void load(void) {
  if (instance_function != NULL) return;
  const char *path = getenv("NULL_GPU_DRIVER");
  void *driver = dlopen(path == NULL ? "libvulkan_radeon.so" : path, RTLD_NOW);
  if (driver == NULL) {
    fprintf(stderr, "null-gpu: %s\n", dlerror());
    exit(1);
  }
  instance_function = (Lookup)dlsym(driver, "vk_icdGetInstanceProcAddr");
  physical_function = (Lookup)dlsym(driver, "vk_icdGetPhysicalDeviceProcAddr");
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vk_icdGetInstanceProcAddr(VkInstance owner, const char *name) {
  load();
  if (strcmp(name, "vkCreateInstance") == 0) return (PFN_vkVoidFunction)create_instance;
  if (strcmp(name, "vkCreateDevice") == 0) return (PFN_vkVoidFunction)create_device;
  if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
    device_function = (PFN_vkGetDeviceProcAddr)instance_function(owner, name);
    return (PFN_vkVoidFunction)get_device_function;
  }
  if (strcmp(name, "vkGetPhysicalDeviceMemoryProperties") == 0) return (PFN_vkVoidFunction)memory_properties;
  if (strncmp(name, "vkGetPhysicalDeviceMemoryProperties2", 36) == 0) return (PFN_vkVoidFunction)memory_properties2;
  return instance_function(owner, name);
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vk_icdGetPhysicalDeviceProcAddr(VkInstance owner, const char *name) {
  load();
  if (strncmp(name, "vkGetPhysicalDeviceMemoryProperties", 35) == 0) return vk_icdGetInstanceProcAddr(owner, name);
  return physical_function == NULL ? NULL : physical_function(owner, name);
}

VKAPI_ATTR VkResult VKAPI_CALL vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
  if (*version > 5) *version = 5;
  return VK_SUCCESS;
}
